//! The blocks of commands on the pages, and that each of them is run. A test that runs those of a section asks for them by
//! [`blocks`], one that runs those of a page by [`whole`], with the names as literals: by these calls the test here sees which
//! blocks are run. What nobody can run here is in [`NOT_RUN`], with the reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::cluster::root;

/// The blocks that no test runs: a page that has one, how they begin, and why.
const NOT_RUN: [(&str, &str, &str); 12] = [
    ("README.md", "docker build ", "no docker: `dev/image` builds the same for the bed, which loads it"),
    ("docs/tasks.md", "docker run ", "no docker"),
    ("docs/installing.md", "cosign verify-blob ", "only what GitHub's workflow publishes is signed"),
    ("docs/installing.md", "skopeo copy ", "no registry to push to"),
    ("docs/kubectl-osvc.md", "kubectl krew ", "no krew: `release` compares its manifest with the archives"),
    (
        "docs/backup.md",
        "mongodump --uri \"$MONGO_URI\" --oplog",
        "what stands in for mongodump knows no oplog",
    ),
    ("docs/backup.md", "mongorestore --uri \"$MONGO_URI\" --oplogReplay", "the same"),
    ("docs/benchmarks.md", "make bench-api ", "they take from minutes to an hour"),
    ("docs/benchmarks.md", "make bench-events ", "the same"),
    ("docs/benchmarks.md", "make bench-sweeper ", "the same"),
    ("docs/benchmarks.md", "make bench-controller ", "the same"),
    ("docs/development.md", "dev/bed up ", "they run these tests"),
];

/// A fenced block of a page.
#[derive(Debug)]
pub(crate) struct Block {
    page: String,
    line: usize,
    /// The heading above it.
    pub(crate) title: String,
    pub(crate) language: String,
    pub(crate) text: String,
}

impl Block {
    fn is_of_commands(&self) -> bool {
        ["sh", "console"].contains(&self.language.as_str())
    }

    fn is_not_run(&self) -> bool {
        NOT_RUN.iter().any(|(_, begins, _)| self.text.starts_with(begins))
    }

    fn words(&self) -> Vec<String> {
        words(&self.text)
    }
}

/// The words of commands, the same for those that differ only in how their lines are broken.
pub(crate) fn words(commands: &str) -> Vec<String> {
    commands.replace("\\\n", " ").split_whitespace().map(str::to_owned).collect()
}

/// The fenced blocks of a page.
fn fenced(page: &str, text: &str) -> Vec<Block> {
    let (mut found, mut title) = (Vec::<Block>::new(), "");
    // A block in a list is indented with it.
    let mut indented = None;
    for (number, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), indented) {
            (Some(language), None) => {
                indented = Some(line.len() - line.trim_start().len());
                found.push(Block {
                    page: page.to_owned(),
                    line: number + 1,
                    title: title.to_owned(),
                    language: language.trim().to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => indented = None,
            (None, Some(by)) => {
                found.last_mut().unwrap().text += &format!("{}\n", line.get(by..).unwrap_or_default());
            }
            (None, None) if line.starts_with('#') => title = line.trim_start_matches('#').trim(),
            (None, None) => {}
        }
    }
    found
}

fn of_page(page: &str) -> Vec<Block> {
    fenced(page, &fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}")))
}

/// The blocks of commands of a page, in their order, but those that nobody can run. Whoever asks runs all of them.
pub(crate) fn whole(page: &str) -> Vec<Block> {
    let mut blocks = of_page(page);
    blocks.retain(|block| block.is_of_commands() && !block.is_not_run());
    assert!(!blocks.is_empty(), "{page} has no commands");
    blocks
}

/// The blocks of commands below a heading of a page, in their order, but those that nobody can run. Whoever asks runs all of
/// them.
pub(crate) fn blocks(page: &str, title: &str) -> Vec<String> {
    let of_title: Vec<_> = whole(page).into_iter().filter(|block| block.title == title).collect();
    assert!(!of_title.is_empty(), "{page} has no commands below {title:?}");
    of_title.into_iter().map(|block| block.text).collect()
}

/// The blocks of something else than commands below a heading of a page.
pub(crate) fn with_language(page: &str, title: &str, language: &str) -> Vec<String> {
    let is_wanted = |block: &Block| block.title == title && block.language == language;
    of_page(page).into_iter().filter(is_wanted).map(|block| block.text).collect()
}

fn list(folder: &Path, ends: &str, into: &mut Vec<String>) {
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let path = folder.join(entry.unwrap().file_name());
        if root().join(&path).is_dir() {
            list(&path, ends, into);
        } else if path.to_str().unwrap().ends_with(ends) {
            into.push(path.to_str().unwrap().to_owned());
        }
    }
}

/// Every page for those who use or change the product.
fn pages() -> Vec<String> {
    let mut pages = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "dev/README.md"]
        .map(str::to_owned)
        .to_vec();
    list(Path::new("docs"), ".md", &mut pages);
    list(Path::new("charts"), "README.md", &mut pages);
    list(Path::new("examples"), "README.md", &mut pages);
    pages
}

/// What the tests ask for: pages, and the headings of each; none where they ask for the whole page.
fn asked_for() -> BTreeMap<String, BTreeSet<Option<String>>> {
    let mut sources = Vec::new();
    list(Path::new("tests/it"), ".rs", &mut sources);
    sources.retain(|source| source != "tests/it/console.rs");
    let mut asked = BTreeMap::<_, BTreeSet<_>>::new();
    for source in sources {
        let text = fs::read_to_string(root().join(&source)).unwrap();
        let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = code.join("\n");
        for (call, is_whole) in [("blocks(", false), ("whole(", true)] {
            for (at, _) in code.match_indices(call) {
                let literal = |text: &'_ str| {
                    let (literal, rest) = text.trim_start().strip_prefix('"')?.split_once('"')?;
                    Some((literal.to_owned(), rest.to_owned()))
                };
                let Some((page, rest)) = literal(&code[at + call.len()..]) else { continue };
                let title = rest.trim_start().strip_prefix(',').and_then(literal).map(|(title, _)| title);
                assert_eq!(title.is_none(), is_whole, "{source}: name the heading of {page} as a literal");
                let names = code[..at].rsplit("let ").next().and_then(|rest| rest.split('=').next());
                let names = names.unwrap_or_default();
                assert!(
                    !names.contains("[_") && !names.contains(" _"),
                    "{source} leaves out a block of {page}"
                );
                asked.entry(page).or_default().insert(title);
            }
        }
    }
    asked
}

#[test]
fn every_block_of_commands_is_run_by_a_test_or_nobody_can_run_it() {
    let asked = asked_for();
    let all: Vec<_> = pages().iter().flat_map(|page| of_page(page)).filter(Block::is_of_commands).collect();
    assert!(all.len() > 100, "{}", all.len());
    let is_asked_for = |block: &Block| {
        let of_page = asked.get(&block.page);
        of_page.is_some_and(|titles| titles.contains(&None) || titles.contains(&Some(block.title.clone())))
    };
    let is_dealt_with = |block: &Block| block.is_not_run() || is_asked_for(block);
    // What is on several pages is run for one of them.
    let dealt_with: BTreeSet<_> = all.iter().filter(|block| is_dealt_with(block)).map(Block::words).collect();
    let missing: Vec<_> = all
        .iter()
        .filter(|block| !dealt_with.contains(&block.words()))
        .map(|block| {
            let Block { page, line, title, .. } = block;
            format!(
                "{page}:{line}: no test asks for blocks({page:?}, {title:?}). Have one run what they give, or say in NOT_RUN why nobody can"
            )
        })
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
    for (page, begins, why) in NOT_RUN {
        assert!(!why.is_empty(), "{page}: {begins}");
        let is_it = |block: &Block| block.page == page && block.text.starts_with(begins);
        assert!(all.iter().any(is_it), "{page} has no block that begins with {begins:?}");
    }
    for (page, titles) in &asked {
        for title in titles {
            let is_there = |block: &Block| {
                &block.page == page
                    && title.as_ref().is_none_or(|title| &block.title == title)
                    && !block.is_not_run()
            };
            assert!(
                all.iter().any(is_there),
                "{page} has no commands below {title:?}, which a test asks for"
            );
        }
    }
}

#[test]
fn every_fenced_block_says_what_it_is_and_commands_are_in_blocks_of_commands() {
    const PROGRAMS: [&str; 12] = [
        "$",
        "cargo",
        "curl",
        "dev/bed",
        "docker",
        "git",
        "helm",
        "kubectl",
        "make",
        "nats",
        "orders-operator",
        "skopeo",
    ];
    for block in pages().iter().flat_map(|page| of_page(page)) {
        let Block { page, line, language, text, .. } = &block;
        assert!(
            !["", "bash", "shell", "zsh"].contains(&language.as_str()),
            "{page}:{line}: write ```sh, ```console for commands with their output, or what else it is"
        );
        if !block.is_of_commands() {
            let mut begins = text.lines().filter_map(|line| line.split_whitespace().next());
            let command = begins.find(|word| PROGRAMS.contains(word));
            // The drawing of README.md has a command in it, and the help of commands has examples.
            let is_other = page == "README.md" && text.contains('▶') || page == "docs/reference/flags.md";
            assert!(command.is_none() || is_other, "{page}:{line}: {command:?} in a block of {language}");
        }
    }
}

#[test]
fn every_target_of_make_on_the_pages_is_there() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let mut named = BTreeSet::new();
    for block in pages().iter().flat_map(|page| of_page(page)).filter(Block::is_of_commands) {
        for line in block.text.lines() {
            let words = line.split('#').next().unwrap_or_default().split_whitespace();
            let target = words.skip_while(|word| *word != "make").skip(1).find(|word| !word.contains('='));
            named.extend(target.map(str::to_owned));
        }
    }
    assert!(named.len() > 7, "{named:?}");
    for target in named {
        assert!(makefile.contains(&format!("\n{target}:")), "there is no `make {target}`");
    }
}

#[test]
fn blocks_are_read_with_their_heading_and_without_the_indentation_of_their_list() {
    let page = "# Page\n\n```yaml\na: 1\n```\n\n## First\n\n1. Do:\n\n   ```sh\n   # not a heading\n   one \\\n     two\n\n   three\n   ```\n\n\
                ### Second\n```console\n$ four\nfive\n```\n";
    let found: Vec<_> = fenced("page", page)
        .into_iter()
        .map(|block| (block.line, block.title, block.language, block.text))
        .collect();
    let block = |line, title: &str, language: &str, text: &str| {
        (line, title.to_owned(), language.to_owned(), text.to_owned())
    };
    let expected = [
        block(3, "Page", "yaml", "a: 1\n"),
        block(11, "First", "sh", "# not a heading\none \\\n  two\n\nthree\n"),
        block(20, "Second", "console", "$ four\nfive\n"),
    ];
    assert_eq!(found, expected);
    let broken = fenced("page", "```sh\na \\\n  b\n```\n```sh\na b\n```\n");
    assert_eq!(broken[0].words(), broken[1].words());
}
