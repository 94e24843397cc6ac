//! `annulus completions` and `annulus man`, from the command line itself.

use std::fs;

use anyhow::Context;
use clap_mangen::Man;

use crate::args::{self, CompletionsArgs, ManArgs};
use crate::output;

/// Prints a completion script.
pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "annulus", &mut script);
    output::write(&script)
}

/// Prints the main page, or writes one per command.
pub(crate) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let mut command = args::command();
    // So that each page has its command's full name, and the global options.
    command.build();
    let Some(dir) = &args.out else {
        return output::write(&page(command)?);
    };
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let mut pages = vec![command];
    let mut count = 0;
    while let Some(command) = pages.pop() {
        let subcommands = command.get_subcommands().filter(|sub| sub.get_name() != "help");
        pages.extend(subcommands.cloned());
        let name = Man::new(command.clone()).get_filename();
        let path = dir.join(name);
        fs::write(&path, page(command)?).with_context(|| format!("writing {}", path.display()))?;
        count += 1;
    }
    output::message(format!("wrote {count} pages to {}", dir.display()));
    Ok(())
}

fn page(command: clap::Command) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command).section("1").manual("Annulus").render(&mut page)?;
    Ok(page)
}
