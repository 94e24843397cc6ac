//! Baskets in which nothing is lost: a node within an application that says how two values of one session become one.
//!
//! ```text
//! cargo run -p annulus-examples --bin annulus-baskets -- --listen 127.0.0.1:7001
//! cargo run -p annulus-examples --bin annulus-baskets -- --listen 127.0.0.1:7002 --seeds 127.0.0.1:7001
//! annulus start ada apples --node 127.0.0.1:7001
//! annulus set ada pears --node 127.0.0.1:7002
//! annulus get ada --node 127.0.0.1:7001     # apples and pears, each on a line
//! ```
//!
//! A basket is a set of lines. Whoever writes one adds to what is there, also on two sides of a partition at the same
//! time. Clients are what they always are; all nodes have to be of this program.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use annulus_node::ValueMerge;
use annulus_node::config::{Config, Flags, Setting, Sources};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(about = "Baskets in which nothing is lost")]
struct Args {
    /// Where the node listens.
    #[arg(long)]
    listen: SocketAddr,
    /// Nodes to join through, `host:port`, separated by commas.
    #[arg(long, default_value = "")]
    seeds: String,
    /// The cluster's name.
    #[arg(long, default_value = "baskets")]
    cluster: String,
    /// Where the node keeps what it has. Default: a directory of its own in the working directory.
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// The lines of both, each once, in ascending order. It takes whatever bytes there are: what two sets of lines become
/// does not depend on their order, on how often this is done, or on what they were made of.
fn lines_of_both(one: &[u8], other: &[u8]) -> Vec<u8> {
    let all: BTreeSet<&[u8]> = lines_of(one).chain(lines_of(other)).collect();
    all.into_iter().collect::<Vec<_>>().join(&b'\n')
}

fn lines_of(basket: &[u8]) -> impl Iterator<Item = &[u8]> {
    basket.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let name = format!("baskets-{}", args.listen.port());
    let mut flags = Flags::default();
    let dir = args.data_dir.unwrap_or_else(|| PathBuf::from(name)).display().to_string();
    flags.set(Setting::DataDir, &dir);
    flags.set(Setting::ShmDir, &dir);
    flags.set(Setting::Cluster, &args.cluster);
    flags.set(Setting::Listen, args.listen.to_string());
    flags.set(Setting::Seeds, args.seeds);
    flags.set(Setting::Socket, "");
    let mut settings = Config::load(Sources { flags, ..Sources::default() })?.settings();
    // Another name for each way of joining: nodes that differ in it exchange nothing, and say so.
    let merge = ValueMerge::new("lines-1", lines_of_both)?;
    for table in &mut settings.tables {
        table.policy.merge = Some(merge.clone());
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async {
        terminate.recv().await;
    };
    annulus_node::embed(settings, Vec::new(), stop, |ready| {
        println!("node {} at {}", ready.node, ready.addr);
    })
    .await?;
    Ok(())
}
