//! Pulling an image from a registry: containerd does it, and asks for credentials.
//!
//! containerd syncs its database but not the files of layers, so that a power cut soon
//! after a pull would leave an image that counts as whole and whose files are empty.
//! An image is therefore pulled under another name first, and gets its own once
//! everything is on the disk. What is found under the other name later is what a cut has
//! left; it is removed with its layers and pulled anew.

use crate::api::{
    AUTH_CREDENTIALS, AUTH_NONE, AUTH_REFRESH, Any, AuthRequest, AuthResponse, Descriptor, Image,
    ImageMessage, ImageStore, Nothing, Platform, Registry, Resolver, StreamInit, Transfer, Unpack,
};
use crate::grpc::{Answer, Client, frame, unframe};
use crate::{SNAPSHOTTER, image};
use anyhow::{Context, Result};
use bytes::BytesMut;
use h2::{RecvStream, SendStream};
use prost::Message;
use std::fmt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// How to log in to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// As this user, with this password.
    User(String, String),
    /// With a token that gives others.
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user, _) => f.debug_tuple("User").field(user).finish_non_exhaustive(),
            Self::IdentityToken(_) => f.debug_tuple("IdentityToken").finish_non_exhaustive(),
        }
    }
}

/// Pulls the image called `reference` for `holder`, beside whom others may pull it.
/// `hosts` is the folder that knows of registries' mirrors; `credentials` says how to log
/// in to a host, `sync` has what was written reach the disk.
pub async fn pull(
    client: &Client,
    reference: &str,
    holder: &str,
    hosts: &Path,
    credentials: impl Fn(&str) -> Option<Credentials> + Send + 'static,
    sync: impl FnOnce() -> Result<()>,
) -> Result<Image> {
    let pulling = format!("{reference} (being pulled for {holder})");
    image::remove(client, &pulling).await?;
    // containerd remembers the names of streams beyond their end, also those of a program
    // before this one.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_nanos();
    let stream = format!("credentials for {reference}, {}-{now}", std::process::id());
    answer_for_credentials(client, &stream, credentials).await?;
    let platform = Platform {
        os: "linux".to_string(),
        architecture: image::architecture().to_string(),
    };
    let source = Registry {
        reference: reference.to_string(),
        resolver: Some(Resolver {
            auth_stream: stream,
            host_dir: hosts.display().to_string(),
        }),
    };
    let destination = ImageStore {
        name: pulling.clone(),
        platforms: vec![platform.clone()],
        unpacks: vec![Unpack {
            platform: Some(platform),
            snapshotter: SNAPSHOTTER.to_string(),
        }],
    };
    let transfer = Transfer {
        source: Some(Any::of("containerd.types.transfer.OCIRegistry", &source)),
        destination: Some(Any::of(
            "containerd.types.transfer.ImageStore",
            &destination,
        )),
    };
    client
        .call::<Nothing>("transfer.v1.Transfer/Transfer", None, &transfer)
        .await
        .with_context(|| format!("cannot pull {reference}"))?;
    let pulled = image::find(client, &pulling).await?;
    let target = pulled.and_then(|image| image.target);
    let target = target.with_context(|| format!("{reference} was pulled and is not there"))?;
    sync()?;
    let image = name(client, reference, target).await?;
    image::remove(client, &pulling).await?;
    Ok(image)
}

/// Gives an image its name, or the name to this image.
async fn name(client: &Client, name: &str, target: Descriptor) -> Result<Image> {
    let image = Image {
        name: name.to_string(),
        target: Some(target),
        ..Image::default()
    };
    let request = ImageMessage {
        image: Some(image.clone()),
    };
    let create = client.ask::<ImageMessage>("images.v1.Images/Create", None, &request);
    if let Answer::AlreadyExists = create.await? {
        client
            .call::<ImageMessage>("images.v1.Images/Update", None, &request)
            .await?;
    }
    Ok(image)
}

/// Opens the stream called `id`, on which containerd asks how to log in, and goes on to
/// answer.
async fn answer_for_credentials(
    client: &Client,
    id: &str,
    credentials: impl Fn(&str) -> Option<Credentials> + Send + 'static,
) -> Result<()> {
    let opening = "cannot open a stream for credentials";
    let (response, mut sender) = client
        .open("streaming.v1.Streaming/Stream", None)
        .await
        .context(opening)?;
    let init = StreamInit { id: id.to_string() };
    send(
        &mut sender,
        "containerd.services.streaming.v1.StreamInit",
        &init,
    )
    .context(opening)?;
    let mut body = response.await.context(opening)?.into_body();
    let mut bytes = BytesMut::new();
    // That it knows the stream is its first answer.
    receive(&mut body, &mut bytes).await?.context(opening)?;
    tokio::spawn(async move {
        // What goes wrong here, the pull says.
        while let Ok(Some(question)) = receive(&mut body, &mut bytes).await {
            let Ok(question) = AuthRequest::decode(question.value.as_slice()) else {
                return;
            };
            let answer = answer(credentials(&question.host));
            let kind = "containerd.types.transfer.AuthResponse";
            if send(&mut sender, kind, &answer).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn answer(credentials: Option<Credentials>) -> AuthResponse {
    let (kind, username, secret) = match credentials {
        None => (AUTH_NONE, String::new(), String::new()),
        Some(Credentials::User(user, password)) => (AUTH_CREDENTIALS, user, password),
        Some(Credentials::IdentityToken(token)) => (AUTH_REFRESH, String::new(), token),
    };
    AuthResponse {
        kind,
        secret,
        username,
    }
}

fn send(sender: &mut SendStream<bytes::Bytes>, kind: &str, message: &impl Message) -> Result<()> {
    Ok(sender.send_data(frame(&Any::of(kind, message))?, false)?)
}

/// The next message of a stream, `None` at its end.
async fn receive(body: &mut RecvStream, bytes: &mut BytesMut) -> Result<Option<Any>> {
    loop {
        if let Some(message) = unframe(bytes)? {
            return Ok(Some(message));
        }
        let Some(chunk) = body.data().await else {
            return Ok(None);
        };
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
}
