"""The test bed. `cli` is the command line, `parts` what can be brought up, the rest what they share."""
