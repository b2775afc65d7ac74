"""What `dev/release` makes: the files that someone installs from, and what says where they come from."""
