//! Sorted sets, as sessions are listed in one by the time at which they expire: members are names of fields, and their values
//! are scores.
//!
//! What ZADD sets without a condition is a plain write, as HSET; all else is decided by a majority of the homes.

use annulus_net::Clock;
use annulus_proto::entry::{Fields, Kind};
use annulus_resp::{
    Argument, Arguments, Command, MemberRange, Membership, Protocol, ScoreChange, Writer,
    ZAddOptions, double, score, texts,
};

use super::connection::Connection;
use super::fields::{Edit, Seen, all_of, field_name, scan_fields};
use super::store::{Outcome, Trouble};

/// Members and their scores: the lowest first, and of one score in the order of their bytes.
type Ranked<'a> = Vec<(&'a [u8], f64)>;

/// What ZADD answers.
enum Added {
    Count(usize),
    /// The score that a member has now; `None`: it was left alone.
    Score(Option<f64>),
}

impl<C: Clock> Connection<C> {
    /// Does a command about sorted sets.
    pub(super) async fn sorted_set<'a>(
        &mut self,
        command: Command<'a>,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        match command {
            Command::ZAdd { key, options, members } => {
                match self.add_scored(key, options, members).await? {
                    Added::Count(count) => out.integer(count as i64),
                    Added::Score(Some(score)) => out.double(score),
                    Added::Score(None) => out.null(),
                }
            }
            Command::ZRem { key, members } => {
                let members = all_of(members);
                let is_one = |name: &[u8], _: &[u8]| members.contains(name);
                out.integer(self.delete_fields(key, Kind::SortedSet, is_one).await? as i64);
            }
            Command::ZRemRangeByScore { key, scores } => {
                let is_one = |_: &[u8], score: &[u8]| scores.contains(score_of(score));
                out.integer(self.delete_fields(key, Kind::SortedSet, is_one).await? as i64);
            }
            Command::ZScore { key, member } => {
                match self.fields(key, Kind::SortedSet).await?.get(&*member) {
                    Some(score) => out.double(score_of(score)),
                    None => out.null(),
                }
            }
            Command::ZCard { key } => {
                out.integer(self.fields(key, Kind::SortedSet).await?.len() as i64);
            }
            Command::ZCount { key, scores } => {
                let members = self.fields(key, Kind::SortedSet).await?;
                let count =
                    members.values().filter(|score| scores.contains(score_of(score))).count();
                out.integer(count as i64);
            }
            Command::ZRange { key, range, is_reversed, with_scores } => {
                let members = self.fields(key, Kind::SortedSet).await?;
                let mut ranked = ranked(&members);
                if is_reversed {
                    ranked.reverse();
                }
                write_members(&part(ranked, range), with_scores, out);
            }
            Command::ZScan { key, scan } => {
                let members = self.fields(key, Kind::SortedSet).await?;
                scan_fields(&members, &scan, 2, out, |member, score, out| {
                    out.bulk(member);
                    out.bulk(double(score_of(score)).as_bytes());
                });
            }
            // All others are done elsewhere.
            _ => return Err(Trouble::Error("ERR", "not here".into())),
        }
        Ok(())
    }

    /// ZADD.
    async fn add_scored<'a>(
        &mut self,
        key: Argument<'a>,
        options: ZAddOptions,
        members: Arguments<'a>,
    ) -> Outcome<'a, Added> {
        let mut given = Vec::with_capacity(members.len() / 2);
        for (text, member) in members.pairs() {
            let score = score(&text).ok_or_else(|| Trouble::text("ERR", texts::NOT_FLOAT))?;
            given.push((field_name(member, Kind::SortedSet)?, score));
        }
        let is_plain = options.only.is_none() && options.only_if.is_none() && !options.increments;
        if !is_plain {
            let names = given.iter().map(|(member, _)| member.clone()).collect();
            let add = |seen: &Seen| {
                let (set, added) = add(&seen.fields, &given, options)?;
                Ok((Edit::set(set), added))
            };
            return self.edit_fields(key, Kind::SortedSet, &names, add).await;
        }
        let set: Fields =
            given.iter().map(|(member, score)| (member.clone(), text_of(*score))).collect();
        let before = self.set_fields(key, Kind::SortedSet, &set).await?;
        Ok(add(&before, &given, options)?.1)
    }
}

/// What becomes of scores, and what ZADD answers.
fn add<'a>(
    before: &Fields,
    given: &[(Vec<u8>, f64)],
    options: ZAddOptions,
) -> Outcome<'a, (Fields, Added)> {
    let (mut set, mut new, mut changed, mut last) = (Fields::new(), 0, 0, None);
    for (member, given) in given {
        // A member may be given several times.
        let current = set.get(member).or_else(|| before.get(member)).map(|score| score_of(score));
        let is_meant = match options.only {
            None => true,
            Some(Membership::Absent) => current.is_none(),
            Some(Membership::Present) => current.is_some(),
        };
        if !is_meant {
            continue;
        }
        let score = match current {
            Some(current) if options.increments => current + given,
            _ => *given,
        };
        if score.is_nan() {
            return Err(Trouble::text("ERR", texts::SCORE_NOT_NUMBER));
        }
        let changes = match (current, options.only_if) {
            (None, _) | (Some(_), None) => true,
            (Some(current), Some(ScoreChange::Greater)) => score > current,
            (Some(current), Some(ScoreChange::Less)) => score < current,
        };
        if !changes {
            continue;
        }
        last = Some(score);
        match current {
            None => new += 1,
            Some(current) if current != score => changed += 1,
            Some(_) => continue,
        }
        set.insert(member.clone(), text_of(score));
    }
    let added = match options.increments {
        true => Added::Score(last),
        false => Added::Count(new + if options.counts_changed { changed } else { 0 }),
    };
    Ok((set, added))
}

fn text_of(score: f64) -> Vec<u8> {
    // There is but one zero.
    double(score + 0.0).into_bytes()
}

/// The score that a field's value is. What another client of Annulus wrote may be none: it counts as 0.
fn score_of(text: &[u8]) -> f64 {
    score(text).unwrap_or(0.0)
}

fn ranked(members: &Fields) -> Ranked<'_> {
    let mut ranked: Vec<_> =
        members.iter().map(|(member, score)| (member.as_slice(), score_of(score))).collect();
    // Those of one score are in order already.
    ranked.sort_by(|(_, one), (_, other)| one.total_cmp(other));
    ranked
}

/// Those that are asked for, in the order in which they are told.
fn part(mut ranked: Ranked<'_>, range: MemberRange) -> Ranked<'_> {
    match range {
        MemberRange::Places { start, stop } => {
            let count = ranked.len() as i64;
            let place = |index: i64| if index < 0 { index.saturating_add(count) } else { index };
            let (start, stop) = (place(start).max(0), place(stop).min(count - 1));
            if start > stop {
                return Vec::new();
            }
            ranked.drain(start as usize..=stop as usize).collect()
        }
        MemberRange::Scores { scores, offset, count } => {
            ranked.retain(|(_, score)| scores.contains(*score));
            let Ok(offset) = usize::try_from(offset) else { return Vec::new() };
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            ranked.into_iter().skip(offset).take(count).collect()
        }
    }
}

fn write_members(members: &Ranked<'_>, with_scores: bool, out: &mut Writer<'_>) {
    let in_pairs = with_scores && out.protocol() == Protocol::Resp3;
    out.array(if with_scores && !in_pairs { 2 * members.len() } else { members.len() });
    for (member, score) in members {
        if in_pairs {
            out.array(2);
        }
        out.bulk(member);
        if with_scores {
            out.double(*score);
        }
    }
}

#[cfg(test)]
mod tests {
    use annulus_resp::ScoreRange;

    use super::*;

    fn members(all: &[(&str, f64)]) -> Fields {
        all.iter().map(|(member, score)| (member.as_bytes().to_vec(), text_of(*score))).collect()
    }

    fn names(ranked: &Ranked<'_>) -> String {
        ranked.iter().map(|(member, _)| String::from_utf8_lossy(member)).collect()
    }

    #[test]
    fn the_lowest_score_is_first_and_bytes_decide_among_equals() {
        let inf = f64::INFINITY;
        let all = [("d", 1.0), ("c", -0.0), ("b", 0.0), ("a", inf), ("e", -inf), ("f", -1.5)];
        assert_eq!(names(&ranked(&members(&all))), "efbcda");
    }

    #[test]
    fn a_range_is_of_places() {
        let all = members(&[("a", 1.0), ("b", 2.0), ("c", 3.0)]);
        for (start, stop, expected) in [
            (0, -1, "abc"),
            (1, 1, "b"),
            (-2, -1, "bc"),
            (-9, 9, "abc"),
            (i64::MIN, i64::MAX, "abc"),
            (2, 1, ""),
            (3, 9, ""),
            (0, -4, ""),
        ] {
            let range = MemberRange::Places { start, stop };
            assert_eq!(names(&part(ranked(&all), range)), expected, "{start} {stop}");
        }
        let nothing = MemberRange::Places { start: 0, stop: -1 };
        assert!(part(Ranked::new(), nothing).is_empty());
    }

    #[test]
    fn a_range_of_scores_has_an_offset_and_a_count() {
        let all = members(&[("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0)]);
        let scores = ScoreRange { min: (1.0, true), max: (4.0, false) };
        for (offset, count, expected) in
            [(0, -1, "bcd"), (1, 1, "c"), (1, i64::MAX, "cd"), (3, 1, ""), (-1, 1, ""), (0, 0, "")]
        {
            let range = MemberRange::Scores { scores, offset, count };
            assert_eq!(names(&part(ranked(&all), range)), expected, "{offset} {count}");
        }
    }

    #[test]
    fn a_score_that_is_none_counts_as_nothing() {
        assert_eq!([score_of(b"x"), score_of(b""), score_of(b"1.5")], [0.0, 0.0, 1.5]);
    }
}
