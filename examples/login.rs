//! A web application's view of a session, in one go: log in, read on each hit, write, log out.
//!
//! ```text
//! annulus node &
//! cargo run -p annulus-examples --bin annulus-login
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use annulus_client::{Change, Client, Error, StartOptions, Value};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let node = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7946".to_owned());
    let client = Client::connect([node]).await?;

    // Log in: a session of named fields, which two requests can write at the same time.
    let fields = [("user", "ada"), ("theme", "dark")];
    let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    let options = StartOptions { idle: Some(Duration::from_secs(1800)), ..Default::default() };
    let started = client.start("c2Vzc2lvbg", Value::Map(fields.into()), options).await?;
    println!("logged in: held by {} of {} homes", started.held_by, started.homes);

    // A hit: out of shared memory on a host that is a home of the session.
    let read = client.get("c2Vzc2lvbg").await?;
    println!("read from {:?}", read.source);

    // A change of one field, and of nothing else.
    let set = BTreeMap::from([(b"cart".to_vec(), b"3 items".to_vec())]);
    let change = Change::Fields { set, delete: Vec::new() };
    client.update("c2Vzc2lvbg", Some(started.birth), change).await?;
    client.touch("c2Vzc2lvbg", Some(started.birth)).await?;

    // Log out: final, also against a request that is still on its way with the old session.
    client.end("c2Vzc2lvbg", Some(started.birth)).await?;
    let late = Change::Value(Value::Bytes(b"a late save".to_vec()));
    let refused = client.update("c2Vzc2lvbg", Some(started.birth), late).await;
    assert_eq!(refused, Err(Error::Ended));
    println!("logged out; a late save is refused: {}", Error::Ended);
    Ok(())
}
