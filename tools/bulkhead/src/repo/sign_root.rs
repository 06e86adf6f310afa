//! `bulkhead repo sign-root`.

use super::KeyFolder;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use update_repository::{Draft, Keys, Source};

/// Arguments of `repo sign-root`.
#[derive(clap::Args)]
pub struct Args {
    /// The draft of a root.json; the one beside the keys if not given, which becomes their
    /// root.json once it has all signatures
    #[arg(requires = "key")]
    draft: Option<PathBuf>,
    /// A key to sign that draft with: a file, or where it is; repeat it for several
    #[arg(long, value_name = "KEY", requires = "draft")]
    key: Vec<String>,
    /// The root.json that the draft comes after, if it is not the first one
    #[arg(long, value_name = "FILE", requires = "draft")]
    after: Option<PathBuf>,
    #[command(flatten)]
    keys: KeyFolder,
    /// Remove the draft beside the keys, and the keys that were made for it, instead
    #[arg(long, conflicts_with = "draft")]
    give_up: bool,
}

/// Signs a draft.
pub fn run(args: Args) -> Result<()> {
    match &args.draft {
        Some(path) => sign(path, &args.key, args.after.as_deref()),
        None => {
            let folder = args.keys.path()?;
            if args.give_up {
                return Keys::give_up_draft(&folder);
            }
            let made = Keys::sign_draft(&folder)?;
            super::tell(&made, &Keys::draft_path(&folder));
            Ok(())
        }
    }
}

/// Signs a draft that is somebody else's.
fn sign(path: &Path, texts: &[String], after: Option<&Path>) -> Result<()> {
    let mut draft = Draft::read(path, after)?;
    ensure!(
        draft.is_judged(),
        "{} is not the first root.json: say with --after which one it comes after",
        path.display()
    );
    let using = |key: &String| {
        let signer = Source::named(key).and_then(|source| source.signer());
        signer.with_context(|| format!("cannot use the key {key}"))
    };
    let keys = texts.iter().map(using).collect::<Result<Vec<_>>>()?;
    for (key, text) in keys.iter().zip(texts) {
        ensure!(
            draft.names(key.as_ref()),
            "{text} is no key of the root that {} names, or the one before it",
            path.display()
        );
    }
    let count = draft.sign(&keys)?;
    draft.write(path)?;
    print!("{draft}");
    match count {
        0 => println!("signed by these keys already"),
        1 => println!("signed by one key"),
        _ => println!("signed by {count} keys"),
    }
    super::tell_lacks(&draft);
    Ok(())
}
