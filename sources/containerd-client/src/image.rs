//! Images that containerd has.

use crate::SNAPSHOTTER;
use crate::api::{
    Content, DeleteImage, Descriptor, Fields, GetImage, Image, ImageMessage, Images, Mount, Mounts,
    Nothing, PrepareSnapshot, ReadContent, Snapshot, UpdateImage,
};
use crate::grpc::{Answer, Client};
use crate::layout::chains;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::iter;
use std::path::PathBuf;

/// How an image wants to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Variables, as `NAME=value`.
    pub environment: Vec<String>,
    /// Where the program starts; empty for the root.
    pub working_folder: String,
    /// The user that it is run as, and perhaps a group, by names or numbers of its own.
    pub user: String,
    /// The snapshot of all its layers.
    pub snapshot: String,
}

/// The image called `name`.
pub async fn find(client: &Client, name: &str) -> Result<Option<Image>> {
    let request = GetImage {
        name: name.to_string(),
    };
    let answer = client.ask::<ImageMessage>("images.v1.Images/Get", None, &request);
    Ok(match answer.await? {
        Answer::Done(answer) => answer.image,
        Answer::NotFound | Answer::AlreadyExists => None,
    })
}

/// Gives an image, which is `target`, its name and these labels, or the name to this image.
/// Other labels that the name has stay, such as those of its users.
pub(crate) async fn name(
    client: &Client,
    lease: Option<&str>,
    name: &str,
    target: Descriptor,
    labels: &[(&str, &str)],
) -> Result<()> {
    let labels = labels.iter();
    let image = Image {
        name: name.to_string(),
        labels: labels
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
        target: Some(target),
    };
    let paths = image.labels.keys().map(|name| format!("labels.{name}"));
    let paths = iter::once("target".to_string()).chain(paths).collect();
    let request = ImageMessage { image: Some(image) };
    let create = client.ask::<ImageMessage>("images.v1.Images/Create", lease, &request);
    if let Answer::AlreadyExists = create.await? {
        let request = UpdateImage {
            image: request.image,
            fields: Some(Fields { paths }),
        };
        client
            .call::<ImageMessage>("images.v1.Images/Update", lease, &request)
            .await?;
    }
    Ok(())
}

/// Takes an image's name away, and waits until what only it kept is gone.
pub async fn remove(client: &Client, name: &str) -> Result<()> {
    let request = DeleteImage {
        name: name.to_string(),
        sync: true,
    };
    let answer = client.ask::<Nothing>("images.v1.Images/Delete", None, &request);
    answer.await.map(drop)
}

/// What a label is called by which an image is known to be used, before the user's name.
const USED_BY: &str = "bulkhead/used-by.";
/// What such a label is given to be taken away: an empty one is none.
const NOT_USED: &str = "";

/// The image called `name`, if it is there. From then on `user` is known to use it, so that
/// no other user removes it.
pub async fn take_up(client: &Client, user: &str, name: &str) -> Result<Option<Image>> {
    let Some(image) = find(client, name).await? else {
        return Ok(None);
    };
    let noted = label(client, &image, &format!("{USED_BY}{user}"), "yes")
        .await
        .with_context(|| format!("cannot note who uses {name}"))?;
    Ok(noted.then_some(image))
}

/// Removes the images that `user` used before the one called `name` and that nobody else uses;
/// returns their names.
pub async fn give_up_others(client: &Client, user: &str, name: &str) -> Result<Vec<String>> {
    let listed: Images = client
        .call("images.v1.Images/List", None, &Nothing {})
        .await
        .context("cannot list the images")?;
    let others = others(&listed.images, user, name);
    for image in others.shared {
        label(client, image, &format!("{USED_BY}{user}"), NOT_USED)
            .await
            .with_context(|| format!("cannot note who uses {}", image.name))?;
    }
    for image in &others.unused {
        remove(client, image)
            .await
            .with_context(|| format!("cannot remove {image}"))?;
    }
    Ok(others.unused)
}

/// Images that a user has used, and does not any more.
struct Others<'a> {
    /// Somebody else uses them.
    shared: Vec<&'a Image>,
    /// Nobody does.
    unused: Vec<String>,
}

fn others<'a>(images: &'a [Image], user: &str, name: &str) -> Others<'a> {
    let own = format!("{USED_BY}{user}");
    let mut others = Others {
        shared: Vec::new(),
        unused: Vec::new(),
    };
    let before = images.iter().filter(|image| image.name != name);
    for image in before.filter(|image| image.labels.contains_key(&own)) {
        let mut labels = image.labels.keys();
        match labels.any(|label| label.starts_with(USED_BY) && *label != own) {
            true => others.shared.push(image),
            false => others.unused.push(image.name.clone()),
        }
    }
    others
}

/// Gives an image a label, beside those that it has. Returns whether the image is still there.
async fn label(client: &Client, image: &Image, label: &str, value: &str) -> Result<bool> {
    let request = UpdateImage {
        image: Some(Image {
            labels: [(label.to_string(), value.to_string())].into(),
            // containerd dies of an image without a target, whichever fields are meant.
            ..image.clone()
        }),
        fields: Some(Fields {
            paths: vec![format!("labels.{label}")],
        }),
    };
    let answer = client.ask::<ImageMessage>("images.v1.Images/Update", None, &request);
    Ok(matches!(answer.await?, Answer::Done(_)))
}

/// Reads how `image` wants to be run on this machine.
pub async fn config(client: &Client, image: &Image) -> Result<ImageConfig> {
    let reading = || format!("cannot read the image {}", image.name);
    let target = image.target.as_ref().with_context(reading)?;
    let read = async {
        let manifest: Manifest = match read::<Parts>(client, target).await? {
            Parts::Manifest(manifest) => manifest,
            Parts::Index(index) => {
                let Some(own) = index.manifests.into_iter().find(Platformed::is_ours) else {
                    bail!("there is none for linux on {}", architecture());
                };
                read(client, &own.part.into()).await?
            }
        };
        read::<Config>(client, &manifest.config.into()).await
    };
    let config = read.await.with_context(reading)?;
    let snapshot = chains(&config.rootfs.diff_ids).pop();
    let how = config.config.unwrap_or_default();
    Ok(ImageConfig {
        entrypoint: how.entrypoint.unwrap_or_default(),
        arguments: how.cmd.unwrap_or_default(),
        environment: how.env.unwrap_or_default(),
        working_folder: how.working_dir.unwrap_or_default(),
        user: how.user.unwrap_or_default(),
        snapshot: snapshot.context("it has no layers").with_context(reading)?,
    })
}

/// The folders of an image's layers as they lie on the host, the top one first. `user` is
/// whom it is for, for whom nobody else asks at the same time.
pub async fn layers(client: &Client, user: &str, image: &ImageConfig) -> Result<Vec<PathBuf>> {
    let looking = "cannot look into the image's layers";
    let view = Snapshot {
        snapshotter: SNAPSHOTTER.to_string(),
        key: format!("layers for {user}"),
    };
    // One that a cut has left.
    let remove = || client.ask::<Nothing>("snapshots.v1.Snapshots/Remove", None, &view);
    remove().await.context(looking)?;
    let request = PrepareSnapshot {
        snapshotter: view.snapshotter.clone(),
        key: view.key.clone(),
        parent: image.snapshot.clone(),
    };
    let mounts: Mounts = client
        .call("snapshots.v1.Snapshots/View", None, &request)
        .await
        .context(looking)?;
    // They are there as long as the image is.
    remove().await.context(looking)?;
    folders(&mounts.mounts).context(looking)
}

/// The folders that are read through what is mounted so.
fn folders(mounts: &[Mount]) -> Result<Vec<PathBuf>> {
    const LOWER: &str = "lowerdir=";
    let [mount] = mounts else {
        bail!("{} mounts are to be made for them", mounts.len());
    };
    let mut options = mount.options.iter();
    let lower = options.find_map(|option| option.strip_prefix(LOWER));
    Ok(match (mount.kind.as_str(), lower) {
        ("overlay", Some(lower)) => lower.split(':').map(PathBuf::from).collect(),
        ("bind", _) => vec![PathBuf::from(&mount.source)],
        (kind, _) => bail!("they would be mounted as {kind}"),
    })
}

/// The processor architecture, as images name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

async fn read<T: DeserializeOwned>(client: &Client, part: &Descriptor) -> Result<T> {
    let request = ReadContent {
        digest: part.digest.clone(),
    };
    let chunks: Vec<Content> = client.read("content.v1.Content/Read", &request).await?;
    let bytes: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.data).collect();
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not valid", part.digest))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Parts {
    Manifest(Manifest),
    Index(Index),
}

#[derive(Deserialize)]
struct Manifest {
    config: Part,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Platformed>,
}

#[derive(Deserialize)]
struct Platformed {
    #[serde(flatten)]
    part: Part,
    platform: Option<Platform>,
}

impl Platformed {
    fn is_ours(&self) -> bool {
        let platform = self.platform.as_ref();
        platform.is_some_and(|platform| {
            platform.os == "linux" && platform.architecture == architecture()
        })
    }
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Deserialize)]
struct Part {
    digest: String,
}

impl From<Part> for Descriptor {
    fn from(part: Part) -> Self {
        Self {
            digest: part.digest,
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
struct Config {
    config: Option<How>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct How {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_folders() {
        let check = |kind: &str, options: &[&str], expected: Option<&[&str]>| {
            let mount = Mount {
                kind: kind.to_string(),
                source: "/layer".to_string(),
                options: options.iter().map(|option| option.to_string()).collect(),
                ..Mount::default()
            };
            let found = folders(&[mount]).ok();
            let expected = expected.map(|all| all.iter().map(PathBuf::from).collect());
            assert_eq!(found, expected, "{kind} {options:?}");
        };
        check("bind", &["ro", "rbind"], Some(&["/layer"]));
        check(
            "overlay",
            &["index=off", "lowerdir=/b:/a"],
            Some(&["/b", "/a"]),
        );
        check("overlay", &["index=off"], None);
        check("erofs", &["ro"], None);
        assert!(folders(&[]).is_err());
    }

    #[test]
    fn what_nobody_uses_any_more_is_removed() {
        let image = |name: &str, users: &[&str]| Image {
            name: name.to_string(),
            labels: users
                .iter()
                .map(|user| (format!("{USED_BY}{user}"), "yes".to_string()))
                .chain([("other".to_string(), "label".to_string())])
                .collect(),
            target: None,
        };
        let images = [
            image("new", &[]),
            image("old", &["admin"]),
            image("older", &["admin"]),
            image("shared", &["admin", "control"]),
            image("of-another", &["control"]),
            image("of-a-like-name", &["admin2"]),
            image("of-nobody", &[]),
        ];
        let check = |user, name, shared: &[&str], unused: &[&str]| {
            let others = others(&images, user, name);
            let found: Vec<_> = others.shared.iter().map(|image| &image.name).collect();
            assert_eq!(found, shared);
            assert_eq!(others.unused, unused);
        };
        check("admin", "new", &["shared"], &["old", "older"]);
        check("control", "shared", &[], &["of-another"]);
    }
}
