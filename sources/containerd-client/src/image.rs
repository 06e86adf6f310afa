//! Images that containerd has.

use crate::api::{
    Content, DeleteImage, Descriptor, Fields, GetImage, Image, ImageMessage, Images, Nothing,
    ReadContent, UpdateImage,
};
use crate::grpc::{Answer, Client};
use crate::layout::chains;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::iter;

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
    /// The numbers of the user and the group that it is run as.
    pub user: (u32, u32),
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
        user: numbers(&how.user.unwrap_or_default()).with_context(reading)?,
        snapshot: snapshot.context("it has no layers").with_context(reading)?,
    })
}

/// The numbers of the user and the group that an image names as `user` or `user:group`. A
/// user without a group has root's, as a user whom its image does not know has elsewhere.
/// Names would need the image's own files, which nothing here reads.
fn numbers(user: &str) -> Result<(u32, u32)> {
    let number = |text: &str| match text {
        "" | "root" => Ok(0),
        text => text.parse().with_context(|| {
            format!("it wants to be run as {user:?}; only numbers of users and groups are known")
        }),
    };
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    Ok((number(user)?, number(group)?))
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
    fn users_are_numbers() {
        for (text, expected) in [
            ("", (0, 0)),
            ("root", (0, 0)),
            ("1000", (1000, 0)),
            ("1000:100", (1000, 100)),
            ("0:274", (0, 274)),
        ] {
            assert_eq!(numbers(text).unwrap(), expected, "{text}");
        }
        for text in ["nobody", "1000:api", "-1", "1:2:3"] {
            let error = format!("{:#}", numbers(text).unwrap_err());
            assert!(error.contains(&format!("run as {text:?}")), "{error}");
        }
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
