//! Origin `debian`: slices of binary packages.
//!
//! A manifest lists the paths that are taken, as patterns; nothing else of the
//! package reaches the image, and none of its scripts ever runs.

use anyhow::{Context, Result, bail};
use globset::{GlobBuilder, GlobMatcher};
use std::path::Path;

/// The patterns of one Debian package, compiled.
pub struct Slice {
    take: Vec<Pattern>,
    leave: Vec<GlobMatcher>,
}

struct Pattern {
    text: String,
    matcher: GlobMatcher,
    used: bool,
}

impl Slice {
    /// Compiles `patterns`; those with a leading `!` leave out what the others
    /// take.
    pub fn new(patterns: &[String]) -> Result<Self> {
        let mut slice = Self {
            take: Vec::new(),
            leave: Vec::new(),
        };
        for pattern in patterns {
            match pattern.strip_prefix('!') {
                Some(left_out) => slice.leave.push(compile(left_out)?),
                None => slice.take.push(Pattern {
                    text: pattern.clone(),
                    matcher: compile(pattern)?,
                    used: false,
                }),
            }
        }
        Ok(slice)
    }

    /// Whether the file at `path` (relative, without a leading `./`) is taken.
    pub fn takes(&mut self, path: &str) -> bool {
        if self.leave.iter().any(|matcher| matcher.is_match(path)) {
            return false;
        }
        let mut taken = false;
        for pattern in &mut self.take {
            if pattern.matcher.is_match(path) {
                pattern.used = true;
                taken = true;
            }
        }
        taken
    }

    /// Patterns that matched nothing: the archive has moved what they name.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.take
            .iter()
            .filter(|pattern| !pattern.used)
            .map(|pattern| pattern.text.as_str())
    }
}

fn compile(pattern: &str) -> Result<GlobMatcher> {
    let glob = GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .with_context(|| format!("{pattern:?} is not a pattern of paths"))?;
    Ok(glob.compile_matcher())
}

/// Unpacks the files of `archive` that `patterns` name into `out`.
///
/// Each pattern must match something: a pattern without a match means that the
/// archive has renamed or dropped a file that the image needs.
pub fn take(name: &str, archive: &Path, patterns: &[String], out: &Path) -> Result<()> {
    let mut slice = Slice::new(patterns).with_context(|| format!("in [debian] take of {name}"))?;
    deb::archive::Deb::open(archive)
        .with_context(|| format!("cannot open the package {name} ({})", archive.display()))?
        .unpack(out, |path| slice.takes(path))
        .with_context(|| format!("cannot unpack the package {name} ({})", archive.display()))?;
    let unused: Vec<&str> = slice.unused().collect();
    if !unused.is_empty() {
        bail!(
            "the Debian package {name} has no file that matches {}; list what it has with \
             `bulkhead inspect --package {name}` and correct the manifest",
            unused.join(", ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(patterns: &[&str], path: &str, taken: bool) {
        let patterns: Vec<String> = patterns.iter().map(|p| p.to_string()).collect();
        let mut slice = Slice::new(&patterns).expect("patterns compile");
        assert_eq!(slice.takes(path), taken, "{patterns:?} on {path}");
    }

    #[test]
    fn patterns() {
        check(&["usr/bin/kmod"], "usr/bin/kmod", true);
        check(&["usr/bin/kmod"], "usr/bin/kmod2", false);
        check(
            &["usr/lib/*/libz.so.1*"],
            "usr/lib/x86_64-linux-gnu/libz.so.1.3.1",
            true,
        );
        check(&["usr/lib/*/libz.so.1*"], "usr/lib/a/b/libz.so.1", false);
        check(
            &["usr/lib/modules/**"],
            "usr/lib/modules/6.12/kernel/fs/erofs.ko.xz",
            true,
        );
        check(
            &["usr/lib/**", "!usr/lib/**/*.a"],
            "usr/lib/x/libc.a",
            false,
        );
        check(
            &["usr/lib/**", "!usr/lib/**/*.a"],
            "usr/lib/x/libc.so",
            true,
        );
    }

    #[test]
    fn unused_patterns_are_reported() {
        let mut slice = Slice::new(&["a".into(), "b".into()]).expect("patterns compile");
        assert!(slice.takes("a"));
        assert_eq!(slice.unused().collect::<Vec<_>>(), ["b"]);
    }
}
