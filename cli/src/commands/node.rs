//! `annulus node`.

use std::io;

use anyhow::Context;
use serde_json::json;
use tracing_subscriber::EnvFilter;

use super::configuration;
use crate::args::{Global, LogFormat, NodeArgs};
use crate::output;

/// Runs a node until it is told to stop.
pub(crate) fn run(global: &Global, args: &NodeArgs) -> anyhow::Result<()> {
    let config = configuration::load(global, &args.settings)?;
    start_logging(configuration::log_filter(&config)?, args.log_format);
    configuration::warn(&config);
    let print_ready = args.print_ready;
    let ran = annulus_node::run_blocking(config.settings(), move |ready| {
        let addr = ready.addr;
        let socket = ready.socket.as_ref().map(|path| path.to_string_lossy());
        let place = socket.as_ref().map(|socket| format!(" and {socket}")).unwrap_or_default();
        let redis: Vec<_> = ready.redis.iter().map(|addr| format!(", redis://{addr}")).collect();
        let redis = redis.concat();
        output::message(format!("node {} is ready at {addr}{place}{redis}", ready.node));
        if print_ready {
            let line = json!({
                "node": ready.node,
                "incarnation": ready.incarnation,
                "addr": addr,
                "socket": socket,
                "redis": ready.redis,
            });
            // Who started the node may have stopped listening; the node serves on.
            let _ = output::json(&line);
        }
    });
    ran.context("the node stopped")
}

fn start_logging(filter: EnvFilter, format: LogFormat) {
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Json => lines.json().init(),
    }
}
