//! The control socket as hosts and operators meet it: real sockets, real threads, a real second process.

mod host_under_test;

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use host_under_test::TestHost;
use modularbase_control::{
    Client, ClientError, ControlError, ControlServer, MAX_CLIENTS, MAX_REQUEST_BYTES, running_hosts_in,
    socket_path_in,
};
use modularbase_manager::{EvictOutcome, PackState};
use serde_json::Value;

/// A host on a socket in a folder of its own.
struct Served {
    folder: tempfile::TempDir,
    host: Arc<TestHost>,
    server: Option<ControlServer>,
}

impl Served {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = Arc::new(TestHost::default());
        let server = ControlServer::start(&folder.path().join("host.sock"), host.clone()).unwrap();
        Self { folder, host, server: Some(server) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("host.sock")
    }

    fn client(&self) -> Client {
        Client::connect(&self.path()).unwrap()
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// What the host answers to bytes as they are.
    fn answer_to(&self, bytes: &[u8]) -> Value {
        let stream = self.raw();
        // A host that has heard enough closes before all is written.
        (&stream).write_all(bytes).ok();
        line_of(&stream)
    }
}

fn line_of(stream: &UnixStream) -> Value {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

#[track_caller]
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn every_request_reaches_the_host_and_its_answer_the_client() {
    let served = Served::start();
    let mut client = served.client();
    assert_eq!(client.status().unwrap(), served.host.report());
    assert_eq!(client.packs().unwrap(), served.host.report().packs);
    client.pin("law", true).unwrap();
    client.set_priority("law", -4).unwrap();
    client.clear_quarantine("law").unwrap();
    client.rescan().unwrap();
    assert_eq!(client.evict("law").unwrap(), EvictOutcome::Evicted { bytes: 6_000_000 });
    assert_eq!(client.evict("poems").unwrap(), EvictOutcome::InUse { leases: 2 });
    assert_eq!(client.evict("code").unwrap(), EvictOutcome::NotResident);
    let refused = client.evict("nobody").unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(why) if why == "there is no pack `nobody`"), "{refused}");
    assert_eq!(served.host.asked(), ["keep law true", "priority law -4", "clear law", "rescan"]);
}

#[test]
fn events_come_after_the_one_that_is_known() {
    let served = Served::start();
    for _ in 0..3 {
        served.host.tell("law", PackState::Resident);
    }
    let sequences = |after| -> Vec<u64> {
        served.client().events(after).unwrap().iter().map(|event| event.sequence).collect()
    };
    assert_eq!(sequences(0), [1, 2, 3]);
    assert_eq!(sequences(2), [3]);
    assert_eq!(sequences(3), [] as [u64; 0]);
}

#[test]
fn the_socket_is_its_users_alone() {
    let served = Served::start();
    let facts = std::fs::symlink_metadata(served.path()).unwrap();
    assert!(facts.file_type().is_socket());
    assert_eq!(facts.permissions().mode() & 0o7777, 0o600);
    assert_eq!(names(served.folder.path()), ["host.sock"], "nothing is left of how it was made");
}

/// Another user's process is turned away even where the file's permissions were opened for everybody.
#[test]
fn another_users_process_is_turned_away() {
    let served = Served::start();
    std::fs::set_permissions(served.folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::set_permissions(served.path(), PermissionsExt::from_mode(0o666)).unwrap();
    let talk = "import socket,sys\ns=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
                try: s.sendall(b'{\"version\":1,\"request\":\"status\"}\\n')\n\
                except BrokenPipeError: pass\n\
                print(s.makefile().readline())";
    // Where a user's own python comes first on the path, another user may not run it.
    let run = |program: &str, words: &[&str], script: &str| {
        let mut command = Command::new(program);
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").args(words);
        command.args(["python3", "-c", script]).arg(served.path()).output().ok()
    };
    let ask =
        |program: &str, words: &[&str]| String::from_utf8(run(program, words, talk).unwrap().stdout).unwrap();
    assert!(ask("env", &[]).contains("\"ok\":{"), "the same user is served");
    let as_nobody = ["--reuid=65534", "--"];
    if run("setpriv", &as_nobody, "pass").is_some_and(|output| output.status.success()) {
        let answer = ask("setpriv", &as_nobody);
        assert!(answer.contains("\"error\":\"only user "), "{answer}");
    }
}

#[test]
fn garbage_gets_an_answer_in_words_and_harms_nobody() {
    let served = Served::start();
    for (bytes, words) in [
        (&b"\n"[..], "expected one JSON object a line"),
        (b"\x00\xff\xfe{{{\n", "expected one JSON object a line"),
        (b"{\"version\":9,\"request\":\"status\"}\n", "expected \\\"version\\\": 1, found 9"),
        (b"{\"version\":1,\"request\":\"shutdown\"}\n", "unknown request"),
        (b"{\"version\":1,\"request\":\"evict\"}\n", "missing field `pack`"),
        (b"GET / HTTP/1.1\r\n\r\n", "expected one JSON object a line"),
    ] {
        let answer = served.answer_to(bytes).to_string();
        assert!(answer.contains("\"error\":") && answer.contains(words), "{answer}");
    }
    // The connection is still of use, and several requests may wait in line.
    let stream = served.raw();
    (&stream)
        .write_all(b"no\n{\"version\":1,\"request\":\"rescan\"}\n{\"version\":1,\"request\":\"packs\"}\n")
        .unwrap();
    let lines: Vec<String> = BufReader::new(&stream).lines().take(3).map(Result::unwrap).collect();
    assert!(
        lines[0].contains("error") && lines[1].contains("\"ok\":true") && lines[2].contains("law"),
        "{lines:?}"
    );
}

#[test]
fn an_oversized_line_is_refused_without_being_kept() {
    let served = Served::start();
    let answer = served.answer_to(&vec![b'x'; MAX_REQUEST_BYTES + (1 << 16)]).to_string();
    assert!(answer.contains("at most 1048576 bytes"), "{answer}");
    let mut largest = br#"{"version":1,"request":"rescan"}"#.to_vec();
    largest.resize(MAX_REQUEST_BYTES, b' ');
    largest.push(b'\n');
    assert_eq!(served.answer_to(&largest)["ok"], true, "the limit itself is allowed");
    served.client().status().unwrap();
}

#[test]
fn half_a_line_and_silence_holds_its_place_for_seconds_only() {
    let served = Served::start();
    let stream = served.raw();
    (&stream).write_all(b"{\"version\":1,").unwrap();
    let begin = Instant::now();
    let answer = line_of(&stream).to_string();
    assert!(answer.contains("expected a whole line within 5 s, found 13 bytes"), "{answer}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    wait_until("the place is free", || served.server.as_ref().unwrap().clients() == 0);
}

#[test]
fn a_hundred_clients_in_turn_leave_nothing() {
    let served = Served::start();
    let open_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    served.client().status().unwrap();
    wait_until("the first has left", || served.server.as_ref().unwrap().clients() == 0);
    for index in 0..100 {
        let mut client = served.client();
        client.pin(&format!("p{index}"), index % 2 == 0).unwrap();
    }
    wait_until("all have left", || served.server.as_ref().unwrap().clients() == 0);
    assert_eq!(served.host.asked().len(), 100);
    // Other tests of this process open files of their own, a hundred times two would show.
    assert!(open_files() < 150, "{}", open_files());
}

#[test]
fn one_client_too_many_is_told_so_and_the_next_has_the_place_of_one_who_left() {
    let served = Served::start();
    let mut clients: Vec<Client> = (0..MAX_CLIENTS).map(|_| served.client()).collect();
    for client in &mut clients {
        client.status().unwrap();
    }
    let refused = served.client().status().unwrap_err();
    assert!(refused.to_string().contains("serves 16 clients already"), "{refused}");
    clients.pop();
    wait_until("a place is free", || served.server.as_ref().unwrap().clients() == MAX_CLIENTS - 1);
    served.client().status().unwrap();
}

#[test]
fn a_follower_hears_what_happened_and_what_happens() {
    let served = Served::start();
    served.host.tell("law", PackState::Seen);
    let mut followed = served.client().follow(0).unwrap();
    let first = followed.next_events().unwrap().unwrap();
    assert_eq!((first.len(), first[0].state), (1, PackState::Seen));
    let begin = Instant::now();
    served.host.tell("law", PackState::Quarantined);
    let next = followed.next_events().unwrap().unwrap();
    assert_eq!((next[0].sequence, next[0].state), (2, PackState::Quarantined));
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());

    let mut from_now = served.client().follow(2).unwrap();
    assert_eq!(from_now.next_events().unwrap(), Some(vec![]), "it is heard at once, with nothing to tell");
}

#[test]
fn a_follower_that_leaves_frees_its_place() {
    let served = Served::start();
    let mut followed = served.client().follow(0).unwrap();
    followed.next_events().unwrap();
    assert_eq!(served.server.as_ref().unwrap().clients(), 1);
    drop(followed);
    wait_until("its place is free", || served.server.as_ref().unwrap().clients() == 0);
}

#[test]
fn a_script_that_closed_its_own_way_still_hears() {
    let served = Served::start();
    let stream = served.raw();
    (&stream).write_all(b"{\"version\":1,\"request\":\"events\",\"follow\":true}\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut lines = BufReader::new(&stream).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"ok\":[]"));
    std::thread::sleep(Duration::from_millis(300));
    served.host.tell("law", PackState::Resident);
    assert!(lines.next().unwrap().unwrap().contains("resident"));
}

#[test]
fn when_the_server_stops_followers_hear_an_end_and_every_thread_is_gone() {
    let mut served = Served::start();
    let mut followed = served.client().follow(0).unwrap();
    followed.next_events().unwrap();
    let mut idle = served.client();
    idle.status().unwrap();
    let follower = std::thread::spawn(move || followed.next_events());
    let begin = Instant::now();
    drop(served.server.take());
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_eq!(follower.join().unwrap().unwrap(), None);
    assert!(matches!(idle.status(), Err(ClientError::Closed)));
    assert_eq!(Arc::strong_count(&served.host), 1, "no thread holds the host");
    assert_eq!(names(served.folder.path()), [] as [&str; 0]);
    assert!(matches!(Client::connect(&served.path()), Err(ClientError::Connect { .. })));
}

#[test]
fn a_dead_hosts_socket_is_replaced_and_a_live_ones_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.sock");
    drop(UnixListener::bind(&path).unwrap());
    std::fs::create_dir(folder.path().join(".bind-1")).unwrap();
    let host = Arc::new(TestHost::default());
    let server = ControlServer::start(&path, host.clone()).unwrap();
    assert_eq!(names(folder.path()), ["host.sock"], "what a killed host left is swept");
    let refused = ControlServer::start(&path, host.clone()).unwrap_err();
    let ControlError::AlreadyServed { pid, .. } = refused else { panic!("{refused}") };
    assert_eq!(u32::try_from(pid).unwrap(), std::process::id());
    Client::connect(&path).unwrap().status().unwrap();
    drop(server);
    std::fs::write(&path, "notes").unwrap();
    assert!(matches!(ControlServer::start(&path, host), Err(ControlError::NoSocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "notes");
}

/// A host that is killed leaves its socket; the next look at the folder clears it away.
#[test]
fn of_two_hosts_on_one_folder_both_are_found_and_the_dead_are_cleared_away() {
    let (run, packs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = run.path().join("run");
    let path = socket_path_in(&run, packs.path()).unwrap();
    assert_eq!(std::fs::metadata(&run).unwrap().permissions().mode() & 0o777, 0o700);
    let server = ControlServer::start(&path, Arc::new(TestHost::default())).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let (key, _) = name.split_once('-').unwrap();
    assert_eq!(key.len(), 16);

    // A second host, in a process of its own.
    let other_path = run.join(format!("{key}-4194999.sock"));
    let listen = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(8); \
                  print('up',flush=True); sys.stdin.read()";
    let mut other = Command::new("python3")
        .args(["-c", listen])
        .arg(&other_path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    other.stdout.take().unwrap().read_exact(&mut [0; 2]).unwrap();
    // Found whatever way leads to the folder of packs, and not under another folder.
    let link = run.join("link");
    std::os::unix::fs::symlink(packs.path(), &link).unwrap();
    let pids = |packs: &Path| running_hosts_in(&run, packs).iter().map(|host| host.pid).collect::<Vec<_>>();
    let mut both = vec![std::process::id(), 4_194_999];
    both.sort_unstable();
    let mut found = pids(&link);
    found.sort_unstable();
    assert_eq!(found, both);
    assert_eq!(pids(&run), [] as [u32; 0]);

    other.kill().unwrap();
    other.wait().unwrap();
    assert!(other_path.exists());
    assert_eq!(pids(packs.path()), [std::process::id()]);
    assert!(!other_path.exists());
    drop(server);
    assert_eq!(pids(packs.path()), [] as [u32; 0]);
}

#[test]
fn a_path_longer_than_a_sockets_address_works() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let path = deep.join("host.sock");
    let server = ControlServer::start(&path, Arc::new(TestHost::default())).unwrap();
    Client::connect(&path).unwrap().status().unwrap();
    drop(server);
    assert_eq!(names(&deep), [] as [&str; 0]);
}

#[test]
fn a_folder_that_others_may_enter_is_closed_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::set_permissions(&run, PermissionsExt::from_mode(0o755)).unwrap();
    socket_path_in(&run, folder.path()).unwrap();
    assert_eq!(std::fs::metadata(&run).unwrap().permissions().mode() & 0o777, 0o700);
}

/// Many operators at once get each their own answers.
#[test]
fn clients_at_the_same_time_get_their_own_answers() {
    let served = Served::start();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let served = &served;
            scope.spawn(move || {
                let mut client = served.client();
                for call in 0..50 {
                    let name = format!("nobody-{thread}-{call}");
                    let refused = client.evict(&name).unwrap_err().to_string();
                    assert_eq!(refused, format!("there is no pack `{name}`"));
                }
            });
        }
    });
}
