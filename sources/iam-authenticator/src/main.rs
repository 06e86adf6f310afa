//! Program that kubelet starts for a token.

use anyhow::{Context, Result, bail};
use aws_client::credentials::{self, Found};
use iam_authenticator::token;
use imds::{Client, Options};
use serde::Deserialize;
use std::process::ExitCode;
use std::time::Duration;
use sysutil::time::Time;

const USAGE: &str = "usage: aws-iam-authenticator token -i CLUSTER [--region REGION] [--token-only]

Prints the token by which this machine proves its role in AWS to the cluster, as
kubelet reads it.

  -i, --cluster-id CLUSTER   the cluster's name
  --region REGION            whose token service is asked (default: AWS_REGION,
                             or where the instance is)
  --token-only               nothing but the token";

/// How long the metadata service may take: kubelet waits meanwhile, and asks again.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Arguments {
    cluster: String,
    region: Option<String>,
    token_only: bool,
}

fn main() -> ExitCode {
    sysutil::main_with("aws-iam-authenticator", || run(&arguments()?))
}

fn run(arguments: &Arguments) -> Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    let now = Time::now();
    let mut client = Client::new(Options::with_budget(PATIENCE));
    let found = match credentials::of_environment(variable)? {
        Some(found) => found,
        None => credentials::of_instance(&mut client, now)?,
    };
    let region = region(arguments, variable, &mut client)?;
    let token = token::token(&arguments.cluster, &region, &found, now);
    if arguments.token_only {
        println!("{token}");
    } else {
        println!("{}", answer(&token, &found, now, variable));
    }
    Ok(())
}

fn answer(
    token: &str,
    found: &Found,
    now: Time,
    variable: impl Fn(&str) -> Option<String>,
) -> String {
    let exec_info = variable("KUBERNETES_EXEC_INFO");
    let expiration = token::expiration(found, now);
    token::exec_credential(token, expiration, exec_info.as_deref()).to_string()
}

fn region(
    arguments: &Arguments,
    variable: impl Fn(&str) -> Option<String>,
    client: &mut Client,
) -> Result<String> {
    #[derive(Deserialize)]
    struct Identity {
        region: String,
    }
    let given = arguments.region.clone();
    if let Some(region) = given
        .or_else(|| variable("AWS_REGION"))
        .or_else(|| variable("AWS_DEFAULT_REGION"))
        .filter(|region| !region.is_empty())
    {
        return Ok(region);
    }
    const TO_DO: &str = "the region is not known: set settings.aws.region";
    let document = client.text(imds::IDENTITY_DOCUMENT).context(TO_DO)?;
    let document = document.context(TO_DO)?;
    let identity: Identity = serde_json::from_str(&document).context(TO_DO)?;
    Ok(identity.region)
}

fn arguments() -> Result<Arguments> {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some("token") => {}
        Some("-h" | "--help") => {
            println!("{USAGE}");
            std::process::exit(0);
        }
        Some(word) => bail!("unknown command {word:?}\n{USAGE}"),
        None => bail!("{USAGE}"),
    }
    let mut arguments = Arguments::default();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} needs a value\n{USAGE}"))
        };
        match word.as_str() {
            "-i" | "--cluster-id" => arguments.cluster = value()?,
            "--region" => arguments.region = Some(value()?),
            "--token-only" => arguments.token_only = true,
            _ => bail!("unknown argument {word:?}\n{USAGE}"),
        }
    }
    if arguments.cluster.is_empty() {
        bail!("whose cluster? name it with -i\n{USAGE}");
    }
    Ok(arguments)
}
