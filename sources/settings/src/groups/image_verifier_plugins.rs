//! `settings.image-verifier-plugins`.

use crate::Scalar;
use crate::model::group;
use crate::types::{base64_decode, text};
use serde_json::Value;

group! {
    /// Checks of an image's signature before a pod runs it.
    pub struct ImageVerifierPlugins {
        /// Whether images are checked.
        "enabled" => enabled: bool, default false;
        /// Checks by Notation.
        "notation" => notation: Notation;
    }
}

group! {
    /// Checks by Notation.
    pub struct Notation {
        /// The trust policy: base64 of its JSON.
        "trustpolicy" => trustpolicy: TrustPolicy;
    }
}

/// Base64 of a JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustPolicy(String);

impl TrustPolicy {
    const LIMIT: usize = 1024 * 1024;

    /// The base64 text as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for TrustPolicy {
    const WHAT: &'static str = "base64 of a JSON object";
    const EXAMPLE: &'static str = "\"eyJ2ZXJzaW9uIjogIjEuMCIsICJ0cnVzdFBvbGljaWVzIjogW119\"";
    const PATTERN: Option<&'static str> = Some("^[A-Za-z0-9+/]*={0,2}$");

    fn check(value: &Value) -> Result<Self, String> {
        let text = text(value, Self::WHAT)?;
        let bytes = base64_decode(text, Self::LIMIT)?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(_)) => Ok(Self(text.to_string())),
            Ok(_) => Err("what the base64 holds is JSON, but no object".into()),
            Err(_) => Err("what the base64 holds is not JSON".into()),
        }
    }

    fn value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::tests::check;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    #[test]
    fn trust_policies() {
        let encoded = |text: &str| json!(STANDARD.encode(text));
        check::<TrustPolicy>(
            &[encoded("{\"version\": \"1.0\"}")],
            &[
                encoded(""),
                encoded("[]"),
                encoded("{"),
                json!("{}"),
                json!(1),
            ],
        );
    }
}
