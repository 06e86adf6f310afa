//! What tells kubelet of a driver, in a container beside it.

use crate::grpc::{self, Answer, Refusal};
use crate::messages::{DriverInfo, Nothing, PluginInfo, RegistrationStatus};
use anyhow::{Context, Result};
use prost::Message;
use std::path::Path;
use std::time::Duration;

/// Between two looks for the driver, which may start later.
const PERIOD: Duration = Duration::from_secs(1);

/// Who is told of.
pub struct Registrar {
    driver: DriverInfo,
    endpoint: String,
}

impl Registrar {
    /// Asks the driver at `socket` for its name, once it answers; kubelet finds it at
    /// `endpoint`.
    pub async fn of(socket: &Path, endpoint: &str) -> Result<Self> {
        while let Err(error) = tokio::net::UnixStream::connect(socket).await {
            println!("the driver is not there: {error}");
            tokio::time::sleep(PERIOD).await;
        }
        let driver = grpc::call(socket, "csi.v1.Identity/GetPluginInfo", &Nothing {})
            .await
            .with_context(|| format!("cannot ask the driver at {}", socket.display()))?;
        Ok(Self {
            driver,
            endpoint: endpoint.to_string(),
        })
    }

    /// The name of the socket at which kubelet looks. It calls with the socket's path as the
    /// name of the host, which HTTP is strict with, but for what comes before an `@`.
    pub fn socket(&self) -> String {
        format!("reg@{}.sock", self.driver.name)
    }

    /// Answers kubelet.
    pub fn answer(&self, method: &str, request: &[u8]) -> Answer {
        match method {
            "pluginregistration.Registration/GetInfo" => Ok(PluginInfo {
                kind: "CSIPlugin".to_string(),
                name: self.driver.name.clone(),
                endpoint: self.endpoint.clone(),
                versions: vec!["1.0.0".to_string()],
            }
            .encode_to_vec()),
            "pluginregistration.Registration/NotifyRegistrationStatus" => {
                let status: RegistrationStatus = grpc::decode(request)?;
                match status.registered {
                    true => println!("{} is registered", self.driver.name),
                    false => println!("{} is not registered: {}", self.driver.name, status.error),
                }
                Ok(Nothing {}.encode_to_vec())
            }
            _ => Err(Refusal::unknown(method)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Driver;
    use std::fs;

    #[test]
    fn a_driver_is_asked_for_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("csi.sock");
        // Left by a process that was killed.
        fs::write(&socket, "").unwrap();
        let driver = Driver::new(folder.path(), "node-1").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let registrar = runtime.block_on(async {
            let listener = grpc::listen(&socket).unwrap();
            tokio::spawn(grpc::serve(listener, move |method, request| {
                driver.answer(method, request)
            }));
            Registrar::of(&socket, "/elsewhere/csi.sock").await.unwrap()
        });
        assert_eq!(registrar.socket(), "reg@example.csi.bulkhead.sock");
        let info = registrar
            .answer("pluginregistration.Registration/GetInfo", &[])
            .unwrap();
        let info = PluginInfo::decode(info.as_slice()).unwrap();
        assert_eq!(
            (info.kind.as_str(), info.endpoint.as_str()),
            ("CSIPlugin", "/elsewhere/csi.sock")
        );
        let unknown = registrar.answer("a/B", &[]);
        assert_eq!(unknown, Err(Refusal::unknown("a/B")));
    }
}
