//! Reads while another process writes: the table, or memory of its own as often.

use super::data::Requests;
use super::subject::{Ours, independent};
use super::writer::Written;
use super::{Bench, Segment};
use crate::report::{Goal, Report, Unit};
use crate::sample::Rounds;

const QUIET: &str = "reads beside a sleeping writer";
const PRIVATE: &str = "reads beside a process that writes private memory at that rate";
const TABLE: &str = "reads beside a process that writes the table at full speed";

pub(super) fn measure(
    bench: &Bench<'_>,
    segment: &mut Segment,
    requests: &Requests,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.progress("reads beside writes");
    let Segment { writer, reader, .. } = segment;
    let mut subject = Ours::new(reader);
    let [mut quiet, mut private, mut table, mut rates] = [const { Rounds::new() }; 4];
    for _ in 0..bench.rounds() {
        quiet.push(independent(&mut subject, requests)?);
        let (ns, per_second) =
            writer.write_while(Written::Table, || independent(&mut subject, requests))?;
        table.push(ns);
        rates.push(per_second);
        let what = Written::Private { per_second };
        let (ns, _) = writer.write_while(what, || independent(&mut subject, requests))?;
        private.push(ns);
    }
    report.row(QUIET, Unit::Ns, &quiet);
    report.row(PRIVATE, Unit::Ns, &private);
    let goal = Goal { must: 1.1, stretch: None };
    report.goal(TABLE, Unit::Ns, &table, Some(PRIVATE), goal);
    report.row("writes beside reads", Unit::PerSecond, &rates);
    Ok(())
}
