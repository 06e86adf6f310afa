//! The client against the strict fake.

#![allow(clippy::unwrap_used, reason = "a test")]

use imds::fake::{Behaviour, Fake, Instance};
use imds::{Client, Error, Options};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const BUDGET: Duration = Duration::from_secs(20);

fn instance() -> Instance {
    let gzip = vec![0x1f, 0x8b, 8, 0, 0xff, 0];
    [
        ("user-data", gzip),
        ("meta-data/instance-id", b"i-0123456789abcdef0\n".to_vec()),
        (
            "meta-data/network/interfaces/macs",
            b"0e:00:00:00:00:01/\n".to_vec(),
        ),
        (
            "meta-data/network/interfaces/macs/0e:00:00:00:00:01/vpc-ipv4-cidr-blocks",
            b"10.1.0.0/16".to_vec(),
        ),
    ]
    .map(|(path, content)| (path.to_string(), content))
    .into()
}

fn fake(behaviour: Behaviour) -> Fake {
    Fake::start(instance(), behaviour).unwrap()
}

fn client(endpoints: &[SocketAddr], budget: Duration) -> Client {
    Client::new(Options {
        endpoints: endpoints.to_vec(),
        // Tests need not wait as long between tries.
        wait: Box::new(|pause| std::thread::sleep(pause / 100)),
        ..Options::with_budget(budget)
    })
}

#[test]
fn data_is_read_with_one_token() {
    let fake = fake(Behaviour::default());
    let mut client = client(&[fake.address()], BUDGET);
    assert_eq!(
        client.get("user-data", 100).unwrap(),
        Some(instance()["user-data"].clone())
    );
    assert_eq!(
        client.text("meta-data/instance-id").unwrap().as_deref(),
        Some("i-0123456789abcdef0")
    );
    let mac = client
        .text("meta-data/network/interfaces/macs")
        .unwrap()
        .unwrap();
    let blocks = format!("meta-data/network/interfaces/macs/{mac}/vpc-ipv4-cidr-blocks");
    assert_eq!(
        client.text(&blocks).unwrap().as_deref(),
        Some("10.1.0.0/16")
    );
    assert_eq!(client.get("meta-data/nothing", 100).unwrap(), None);
    assert_eq!(
        fake.requests(),
        [
            "PUT /latest/api/token 200",
            "GET /2021-07-15/user-data 200",
            "GET /2021-07-15/meta-data/instance-id 200",
            "GET /2021-07-15/meta-data/network/interfaces/macs 200",
            "GET /2021-07-15/meta-data/network/interfaces/macs/0e:00:00:00:00:01//vpc-ipv4-cidr-blocks 200",
            "GET /2021-07-15/meta-data/nothing 404",
        ]
    );
}

#[test]
fn a_machine_without_user_data_has_none() {
    let fake = fake(Behaviour::default());
    fake.change(|instance| {
        instance.remove("user-data");
    });
    let mut client = client(&[fake.address()], BUDGET);
    assert_eq!(client.get("user-data", 100).unwrap(), None);
}

#[test]
fn a_token_that_is_refused_or_has_run_out_is_renewed_once() {
    let fake = fake(Behaviour {
        refuse_token: 1,
        ..Behaviour::default()
    });
    let mut client = client(&[fake.address()], BUDGET);
    assert!(client.get("user-data", 100).unwrap().is_some());
    fake.expire_tokens();
    assert!(client.get("user-data", 100).unwrap().is_some());
    let asked = [
        "PUT /latest/api/token 200",
        "GET /2021-07-15/user-data 401",
        "PUT /latest/api/token 200",
        "GET /2021-07-15/user-data 200",
        "GET /2021-07-15/user-data 401",
        "PUT /latest/api/token 200",
        "GET /2021-07-15/user-data 200",
    ];
    assert_eq!(fake.requests(), asked);
}

#[test]
fn a_token_runs_out_by_the_clock() {
    let lifetime = Duration::from_millis(50);
    let fake = fake(Behaviour {
        token_lifetime: Some(lifetime),
        ..Behaviour::default()
    });
    let mut client = client(&[fake.address()], BUDGET);
    assert!(client.get("user-data", 100).unwrap().is_some());
    std::thread::sleep(lifetime);
    assert!(client.get("user-data", 100).unwrap().is_some());
    assert_eq!(fake.requests()[2], "GET /2021-07-15/user-data 401");
}

#[test]
fn what_no_further_try_can_change_is_an_error_at_once() {
    let off = Behaviour {
        off: true,
        ..Behaviour::default()
    };
    let fake_off = fake(off);
    let error = client(&[fake_off.address()], BUDGET)
        .get("user-data", 100)
        .unwrap_err();
    assert!(matches!(error, Error::Off), "{error}");
    assert_eq!(fake_off.requests(), ["PUT /latest/api/token 403"]);

    let fake_refusing = fake(Behaviour {
        refuse_token: 99,
        ..Behaviour::default()
    });
    let error = client(&[fake_refusing.address()], BUDGET)
        .get("user-data", 100)
        .unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert_eq!(fake_refusing.requests().len(), 4);
}

#[test]
fn a_service_that_starts_slowly_is_waited_for() {
    let fake = fake(Behaviour {
        hang_up: 2,
        unavailable: 3,
        ..Behaviour::default()
    });
    let mut client = client(&[fake.address()], BUDGET);
    assert!(client.get("user-data", 100).unwrap().is_some());
    let unavailable = fake.requests();
    let unavailable = unavailable.iter().filter(|line| line.ends_with("503"));
    assert_eq!(unavailable.count(), 3);
}

#[test]
fn a_service_that_is_not_there_yet_is_waited_for() {
    // A port that is free again once the listener is gone.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        let listener = TcpListener::bind(address).unwrap();
        Fake::listen(listener, instance(), Behaviour::default()).unwrap()
    });
    let mut client = client(&[address], BUDGET);
    assert!(client.get("user-data", 100).unwrap().is_some());
    drop(later.join().unwrap());
}

#[test]
fn the_second_endpoint_is_asked_when_the_first_is_not_there() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let fake = fake(Behaviour::default());
    let mut client = client(&[nobody, fake.address()], BUDGET);
    assert!(client.get("user-data", 100).unwrap().is_some());
}

#[test]
fn the_budget_ends_it() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = nobody.local_addr().unwrap();
    for address in [silent, "127.0.0.1:1".parse().unwrap()] {
        let started = Instant::now();
        let error = client(&[address], Duration::from_millis(300))
            .get("user-data", 100)
            .unwrap_err();
        assert!(matches!(error, Error::Budget { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("/2021-07-15/user-data within 0.3 s"),
            "{text}"
        );
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn no_more_is_read_than_asked_for() {
    let fake = fake(Behaviour::default());
    fake.change(|instance| {
        instance.insert("user-data".into(), vec![b'x'; 100_000]);
    });
    let mut client = client(&[fake.address()], BUDGET);
    let read = client.get("user-data", 1_000).unwrap().unwrap();
    assert_eq!(read.len(), 1_001);
}

/// The fake itself refuses what a careless client would do.
#[test]
fn the_fake_is_strict() {
    let fake = fake(Behaviour::default());
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(fake.address()).unwrap();
        write!(stream, "{request}\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let lifetime = "X-aws-ec2-metadata-token-ttl-seconds: 60";
    let answer = ask(&format!("PUT /latest/api/token HTTP/1.1\r\n{lifetime}"));
    let token = answer.lines().last().unwrap();
    let token = format!("X-aws-ec2-metadata-token: {token}");
    for (request, status) in [
        ("PUT /latest/api/token HTTP/1.1".to_string(), 400),
        (
            "PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 0".into(),
            400,
        ),
        (
            format!("PUT /latest/api/token HTTP/1.1\r\n{lifetime}\r\nX-Forwarded-For: 10.0.0.1"),
            403,
        ),
        (format!("GET /latest/api/token HTTP/1.1\r\n{token}"), 405),
        (format!("POST /latest/user-data HTTP/1.1\r\n{token}"), 405),
        ("GET /latest/user-data HTTP/1.1".into(), 401),
        (
            "GET /latest/user-data HTTP/1.1\r\nX-aws-ec2-metadata-token: guess".into(),
            401,
        ),
        (format!("GET /latest/user-data HTTP/1.1\r\n{token}"), 200),
        (
            format!("GET /2021-07-15/user-data HTTP/1.1\r\n{token}"),
            200,
        ),
        (
            format!("GET /1066-10-14/user-data HTTP/1.1\r\n{token}"),
            404,
        ),
        (format!("GET /user-data HTTP/1.1\r\n{token}"), 404),
        (
            format!("GET /latest/meta-data//instance-id HTTP/1.1\r\n{token}"),
            404,
        ),
    ] {
        let answer = ask(&request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {answer}"
        );
    }
}
