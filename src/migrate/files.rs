//! Reading files and folders, and what a skaffold.yaml lists.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use super::{
    documents::{MAX_TEXT_BYTES, Reader},
    error::MigrateError,
    finding::{Findings, Kind, Whom},
    skaffold,
};

/// The most files that are read.
const MAX_FILES: usize = 5_000;

/// How deep folders are looked into.
const MAX_DEPTH: usize = 12;

/// Reads every input into `reader`.
///
/// # Errors
/// When one that is named cannot be read.
pub(super) fn read(
    inputs: &[PathBuf],
    reader: &mut Reader,
    findings: &mut Findings,
) -> Result<(), MigrateError> {
    let mut files = Files { reader, findings, seen: BTreeSet::new(), is_full: false };
    for input in inputs {
        let failed = |source| MigrateError::Read { input: input.clone(), source };
        if input == Path::new("-") {
            let text = text_of(io::stdin()).map_err(failed)?;
            files.reader.read("standard input", &text, files.findings);
        } else if input.is_dir() {
            let is_first = files.seen.is_empty();
            let left = files.lefts();
            files.folder(input, 0).map_err(failed)?;
            if is_first && files.seen.is_empty() && files.lefts() == left {
                files.left(
                    input,
                    "has no YAML file (*.yaml, *.yml) that is not hidden, so none of it was read".into(),
                );
            }
        } else {
            let before = (files.reader.objects.len(), files.lefts());
            let seen = files.seen.len();
            files.file(input).map_err(failed)?;
            // One that was read before has nothing new.
            if before == (files.reader.objects.len(), files.lefts()) && seen != files.seen.len() {
                files.left(
                    input,
                    "has no Kubernetes object, so none of it was read: see that it is the right file".into(),
                );
            }
        }
    }
    Ok(())
}

struct Files<'a> {
    reader: &'a mut Reader,
    findings: &'a mut Findings,
    seen: BTreeSet<PathBuf>,
    is_full: bool,
}

impl Files<'_> {
    /// Reads the YAML files in a folder and below it, by name. Hidden ones and packages of Node.js are left out, and links to
    /// folders are not followed.
    fn folder(&mut self, folder: &Path, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            self.left(folder, format!("was not read, since it is more than {MAX_DEPTH} folders deep"));
            return Ok(());
        }
        for path in entries(folder)? {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with('.') || name == "node_modules" {
                continue;
            }
            let kind = path.symlink_metadata()?.file_type();
            if kind.is_dir() {
                self.folder(&path, depth + 1)?;
            } else if is_yaml(&path)
                && let Err(error) = self.file(&path)
            {
                self.left(&path, format!("cannot be read: {error}"));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> io::Result<()> {
        if !path.metadata()?.is_file() {
            return Err(io::Error::other("is not a file"));
        }
        if !self.seen.insert(path.canonicalize()?) {
            return Ok(());
        }
        if self.seen.len() > MAX_FILES {
            if !std::mem::replace(&mut self.is_full, true) {
                self.left(
                    path,
                    format!("from here on no file was read, since there are more than {MAX_FILES}"),
                );
            }
            return Ok(());
        }
        let text = text_of(File::open(path)?)?;
        let before = self.reader.objects.len();
        self.reader.read(&path.display().to_string(), &text, self.findings);
        let new = self.reader.objects.get(before..).unwrap_or_default();
        let of_skaffold = new.iter().filter(|object| object.group == "skaffold");
        let patterns: Vec<_> = of_skaffold.flat_map(skaffold::manifests).collect();
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        patterns.iter().for_each(|pattern| self.listed(path, &folder, pattern));
        Ok(())
    }

    /// Reads what a skaffold.yaml lists by a pattern; only below its own folder, since it may be anybody's.
    fn listed(&mut self, of: &Path, folder: &Path, pattern: &str) {
        let components: Vec<_> =
            Path::new(pattern).components().filter(|part| *part != Component::CurDir).collect();
        let is_below = !pattern.contains("://")
            && components.len() <= MAX_DEPTH
            && components.iter().all(|part| matches!(part, Component::Normal(_)));
        if !is_below {
            let beside = folder_of(&components);
            let named = beside.filter(|_| !pattern.contains("://")).map(|beside| {
                format!(", as in orders-operator migrate {} {}", of.display(), folder.join(beside).display())
            });
            let told = format!(
                "lists {pattern:?}, which was not read, since it is not below its folder: name it as an input{}",
                named.unwrap_or_default()
            );
            return self.left(of, told);
        }
        let parts: Vec<_> =
            components.iter().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        let mut found = Vec::new();
        matching(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }, &parts, &mut found);
        if found.is_empty() {
            self.left(of, format!("lists {pattern:?}, and there is no such YAML file"));
        }
        for file in found {
            if !is_within(&file, folder) {
                self.left(&file, "was not read, since it leads out of the folder of skaffold.yaml".into());
            } else if let Err(error) = self.file(&file) {
                self.left(&file, format!("cannot be read: {error}"));
            }
        }
    }

    /// How much is left to do.
    fn lefts(&self) -> usize {
        self.findings.of(Kind::Left).0.count()
    }

    fn left(&mut self, path: &Path, told: String) {
        self.findings.add(Kind::Left, Whom::You, &path.display().to_string(), told);
    }
}

/// The part of a pattern before what stands for any name.
fn folder_of(components: &[Component<'_>]) -> Option<PathBuf> {
    let is_fixed = |part: &&Component<'_>| !part.as_os_str().to_string_lossy().contains('*');
    let folder: PathBuf = components.iter().take_while(is_fixed).collect();
    (!folder.as_os_str().is_empty()).then_some(folder)
}

/// The YAML files below a folder whose path has these parts: `*` is anything within one, `**` any number of folders.
fn matching(folder: &Path, parts: &[String], found: &mut Vec<PathBuf>) {
    let Some((part, rest)) = parts.split_first() else { return };
    let is_any_depth = part == "**";
    // A folder that a pattern means is read as a whole, as skaffold does.
    let whole = ["**".to_owned()];
    let below = if is_any_depth {
        parts
    } else if rest.is_empty() {
        &whole
    } else {
        rest
    };
    if is_any_depth && !rest.is_empty() {
        matching(folder, rest, found);
    }
    // A folder that cannot be read has no files to find, which is told if nothing else is found.
    for path in entries(folder).unwrap_or_default() {
        if found.len() > MAX_FILES {
            return;
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_like = is_any_depth || is_like(&name, part);
        if path.symlink_metadata().is_ok_and(|of| of.is_dir()) {
            if is_like && !name.starts_with('.') {
                matching(&path, below, found);
            }
        } else if is_like && rest.is_empty() && is_yaml(&path) {
            found.push(path);
        }
    }
}

/// Whether a file is below a folder, whatever links there are.
fn is_within(file: &Path, folder: &Path) -> bool {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let (file, folder) = (file.canonicalize(), folder.canonicalize());
    file.ok().zip(folder.ok()).is_some_and(|(file, folder)| file.starts_with(folder))
}

/// Whether a name is like a pattern, in which `*` is any text.
fn is_like(name: &str, pattern: &str) -> bool {
    let mut texts = pattern.split('*');
    let first = texts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    let texts: Vec<_> = texts.collect();
    let Some((last, middle)) = texts.split_last() else { return rest.is_empty() };
    for text in middle {
        let Some(at) = rest.find(text) else { return false };
        rest = rest.get(at + text.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<_> =
        folder.read_dir()?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    paths.sort();
    Ok(paths)
}

/// A text up to a byte more than is read, so that one that is too long is noticed.
fn text_of(from: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    let is_long = bytes.len() > MAX_TEXT_BYTES;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        // It may be cut within a character.
        Err(error) if is_long => Ok(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        Err(_) => Err(io::Error::other("is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_like_a_pattern() {
        for (name, pattern, like) in [
            ("a.yaml", "*", true),
            ("a.yaml", "*.yaml", true),
            ("a.yaml", "a.yaml", true),
            ("a.yaml", "a", false),
            ("orders-depl.yaml", "o*-*.yaml", true),
            ("orders.yml", "o*-*.yaml", false),
            ("ab", "ab*b", false),
        ] {
            assert_eq!(is_like(name, pattern), like, "{name} {pattern}");
        }
    }
}
