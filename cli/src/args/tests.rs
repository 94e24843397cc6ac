use super::*;

fn parsed(line: &str) -> Cli {
    parse(line.split_whitespace()).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(line: &str) -> String {
    let error = parse(line.split_whitespace()).expect_err("it must be refused");
    assert_eq!(error.exit_code(), i32::from(exit::USAGE));
    error.to_string()
}

#[test]
fn the_command_line_is_consistent() {
    command().debug_assert();
}

#[test]
fn global_options_stand_before_or_after_the_command() {
    for line in [
        "annulus --json --node a:1 --node b:2,c:3 --table t --timeout 300ms members",
        "annulus members --json --node a:1 --node b:2,c:3 --table t --timeout 300ms",
    ] {
        let Cli { global, command } = parsed(line);
        assert!(matches!(command, Command::Members));
        assert!(global.json);
        assert_eq!(global.node, ["a:1", "b:2", "c:3"]);
        assert_eq!(global.table, "t");
        assert_eq!(global.timeout, Duration::from_millis(300));
    }
}

#[test]
fn every_setting_has_a_flag() {
    let line = "annulus node --cluster c --name n --data-dir /d --seed a:1 --seeds b:2,c:3 --weight 5 --log debug";
    let Cli { global, command } = parsed(line);
    let Command::Node(node) = command else { panic!("not the node") };
    let given = &node.settings.given;
    assert!(given.contains(&(Setting::Seeds, "a:1,b:2,c:3".to_owned())), "{given:?}");
    assert!(given.contains(&(Setting::DataDir, "/d".to_owned())), "{given:?}");
    assert_eq!(global.cluster.as_deref(), Some("c"));
    assert_eq!(node.log_format, LogFormat::Text);

    let flags = command_of("node");
    let longs: Vec<&str> = flags.get_arguments().filter_map(Arg::get_long).collect();
    for setting in Setting::ALL {
        assert!(longs.contains(&setting.flag()), "no --{}", setting.flag());
    }
}

#[test]
fn a_node_is_not_told_whom_to_talk_to() {
    assert!(refused("annulus node --node a:1").contains("--seeds"));
}

#[test]
fn a_session_starts_with_a_value_or_with_fields() {
    let Command::Start(start) =
        parsed("annulus start k v --idle 30m --lifetime never --owner ada").command
    else {
        panic!("not start")
    };
    assert_eq!(start.value.value, Some("v".into()));
    assert_eq!(start.lifetimes.idle, Some(Duration::from_secs(1_800)));
    assert_eq!(start.lifetimes.lifetime, Some(Duration::ZERO));
    assert_eq!(start.owner, Some("ada".into()));
    let Command::Start(start) = parsed("annulus start k --field a=1 --field b=2").command else {
        panic!("not start")
    };
    assert_eq!(start.value.fields, ["a=1", "b=2"]);
    assert!(refused("annulus start k").contains("give a VALUE"));
    refused("annulus start k v --field a=1");
    refused("annulus start k v --file f");
    refused("annulus start");
    assert!(refused("annulus start k v --idle 30").contains("needs a unit"));
}

#[test]
fn a_change_is_of_the_value_or_the_fields_or_the_lifetimes() {
    parsed("annulus set k v");
    parsed("annulus set k -");
    parsed("annulus set k --field a=1 --delete b");
    parsed("annulus set k --delete b");
    parsed("annulus set k --idle 1h");
    assert!(refused("annulus set k").contains("give a VALUE"));
    assert!(refused("annulus set k v --idle 1h").contains("one after the other"));
    refused("annulus set k v --delete b");
}

#[test]
fn a_suspect_is_named_or_found_by_its_key() {
    let Command::Suspects(SuspectsCommand::Release(release)) =
        parsed("annulus suspects release 7629-00a1b2c3d4e5").command
    else {
        panic!("not release")
    };
    let name = release.suspect.name.expect("it was named");
    assert_eq!((name.to_string().as_str(), release.suspect.key), ("7629-00a1b2c3d4e5", None));
    assert_eq!(release.time, Duration::from_secs(60));
    let Command::Suspects(SuspectsCommand::Release(release)) =
        parsed("annulus suspects release --key k --for 2h --json").command
    else {
        panic!("not release")
    };
    assert_eq!((release.suspect.name, release.suspect.key), (None, Some("k".into())));
    assert_eq!(release.time, Duration::from_secs(7_200));
    parsed("annulus suspects end --key k");
    parsed("annulus suspects release --key k --for 365d");
    refused("annulus suspects release --key k --for 366d");
    refused("annulus suspects release --key k --for 0s");
    assert!(refused("annulus suspects end k").contains("not the name of a suspect"));
    refused("annulus suspects end 7629-00a1b2c3d4e5 --key k");
    refused("annulus suspects end");
    refused("annulus suspects end --key k --for 1m");
}

#[test]
fn suspects_are_watched_for_ever_or_for_so_many_changes() {
    parsed("annulus suspects list");
    for (line, expected) in
        [("annulus suspects watch", None), ("annulus suspects watch --count 3", Some(3))]
    {
        let Command::Suspects(SuspectsCommand::Watch(watch)) = parsed(line).command else {
            panic!("not watch")
        };
        assert_eq!(watch.count, expected);
    }
    refused("annulus suspects watch --count 0");
    refused("annulus suspects");
}

#[test]
fn wrong_uses_are_refused() {
    refused("annulus nosuch");
    refused("annulus sessions --local --all");
    refused("annulus sessions --limit 0");
    assert!(refused("annulus members --timeout 5").contains("needs a unit"));
    refused("annulus members --timeout 0s");
    refused("annulus completions tcsh-of-old");
    refused("annulus config");
}

#[test]
fn help_fits_80_columns_and_lists_the_exit_codes() {
    fn visit(command: &mut ClapCommand, path: &str) {
        let path = format!("{path} {}", command.get_name());
        for help in [command.render_help(), command.render_long_help()] {
            for line in help.to_string().lines() {
                assert!(line.chars().count() <= 80, "{path}: {line}");
            }
        }
        for sub in command.get_subcommands_mut() {
            visit(sub, &path);
        }
    }
    let mut command = command().term_width(80);
    command.build();
    visit(&mut command, "");
    let help = command.render_help().to_string();
    for code in 0..=8 {
        assert!(help.contains(&format!("\n  {code}  ")), "{help}");
    }
}

fn command_of(name: &str) -> ClapCommand {
    let mut command = command();
    command.build();
    command.find_subcommand(name).expect("it exists").clone()
}
