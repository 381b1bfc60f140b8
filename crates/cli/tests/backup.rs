//! The story: an operator prepares a vault, backs a real etcd up into it, looks, verifies, prunes; in a folder and in a
//! bucket of a real S3 server; with wrong keys, and with a `kill -9` in the middle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{Member, spawn};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use testbed::components::age;

/// A running etcd, keys, and an empty folder for the vault.
struct World {
    dir: tempfile::TempDir,
    member: Member,
    recipient: String,
    env: Vec<(&'static str, String)>,
    vault: String,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let member = Member::boot(&dir.path().join("etcd"), &testbed::ports::free_url());
        let keygen = |name: &str| {
            let file = dir.path().join(name);
            let age = age().unwrap();
            let made = Command::new(age.path("age-keygen")).arg("-o").arg(&file).output().unwrap();
            assert!(made.status.success());
            let public = Command::new(age.path("age-keygen")).arg("-y").arg(&file).output().unwrap();
            String::from_utf8(public.stdout).unwrap().trim().to_owned()
        };
        let recipient = keygen("identity.txt");
        keygen("other-identity.txt");
        std::fs::create_dir(dir.path().join("vault")).unwrap();
        let vault = dir.path().join("vault").to_str().unwrap().to_owned();
        let world = Self { dir, member, recipient, env: Vec::new(), vault };
        for i in 0..30 {
            world.put(i);
        }
        world
    }

    fn put(&self, i: u32) {
        self.member.try_ctl(&["put", &format!("/registry/secrets/ns/s{i}"), &"value".repeat(50)]).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn backup(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.arg("backup").args(args).args(["--vault", &self.vault, "-o", "json"]).stdin(Stdio::null());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.backup(args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn init(&self) -> Value {
        let (key, identity) = (self.path("sign.key"), self.path("identity.txt"));
        let keys = ["--signing-key", &key, "--identity", &identity, "--recipient", &self.recipient];
        self.json(&[&["init"], &keys[..]].concat())
    }

    fn take_args(&self) -> Vec<String> {
        let mut args =
            vec!["run", "--cluster", "prod", "--endpoints", &self.member.url, "--recipient", &self.recipient];
        let (key, scratch) = (self.path("sign.key"), self.path("scratch"));
        args.extend(["--signing-key", &key, "--scratch", &scratch]);
        args.into_iter().map(str::to_owned).collect()
    }

    fn take(&self) -> Value {
        let args = self.take_args();
        self.json(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn verify(&self, signer: &str) -> Value {
        let (identity, scratch) = (self.path("identity.txt"), self.path("scratch"));
        self.json(&["verify", "--signer", signer, "--identity", &identity, "--scratch", &scratch])
    }
}

fn error(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Makes all files below a folder two days old.
fn age_files(dir: &Path) {
    let then = std::time::SystemTime::now() - Duration::from_secs(2 * 86_400);
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            age_files(&path);
        } else {
            std::fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
        }
    }
}

/// `stored`: the folder in which the vault's objects are files.
fn whole_story(world: &World, stored: &Path) {
    let made = world.init();
    let signer = made["signer"].as_str().unwrap();
    assert_eq!((&made["made"], &made["identityProved"]), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!(world.init()["signer"], signer, "a key that is there is kept");

    let first = world.take();
    world.put(1);
    let second = world.take();
    let (first, second) = (&first["manifest"], &second["manifest"]);
    assert_eq!(first["sequence"], 1);
    assert_eq!(second["sequence"], 2);
    assert_eq!(first["liveKeys"], 30);
    assert_eq!(second["revision"], first["revision"].as_i64().unwrap() + 1);
    assert_eq!(first["timeline"], second["timeline"], "the same history");
    let live: Value =
        serde_json::from_str(&world.member.try_ctl(&["endpoint", "hashkv", "-w", "json"]).unwrap()).unwrap();
    assert_eq!(second["hashKv"][0]["hash"], live[0]["HashKV"]["hash"]);

    let list = world.json(&["list", "--signer", signer]);
    assert_eq!(list["timelines"][0]["fulls"].as_array().unwrap().len(), 2);
    assert_eq!(list["timelines"][0]["restorable"].as_array().unwrap().len(), 1, "neighbours: no gap between");
    let shown = world.json(&["show", "--signer", signer]);
    assert_eq!(shown["manifest"], *second, "the newest");
    let verified = world.verify(signer);
    assert_eq!(
        (&verified["goodFulls"], &verified["contentRead"]),
        (&serde_json::json!([1, 2]), &Value::Bool(true))
    );

    // as if they had been written two days ago: what is young stays whatever the rules say
    age_files(stored);
    let key = world.path("sign.key");
    let none = ["--keep-hourly", "0", "--keep-daily", "0", "--keep-weekly", "0", "--keep-monthly", "0"];
    let prune = |more: &[&'static str]| {
        let args = [&["prune", "--signing-key", &key, "--keep-last", "1"], &none[..], more].concat();
        world.run(&args)
    };
    let refused = prune(&[]);
    assert_eq!(refused.status.code(), Some(5), "no consent without a terminal: {}", error(&refused));
    let told: Value = serde_json::from_slice(&prune(&["--dry-run"]).stdout).unwrap();
    assert_eq!((&told["removed"][0]["sequence"], &told["dryRun"]), (&Value::from(1), &Value::Bool(true)));
    assert_eq!(world.verify(signer)["manifests"], 2, "nothing went");
    let done: Value = serde_json::from_slice(&prune(&["--yes"]).stdout).unwrap();
    assert_eq!(done["removed"], told["removed"]);
    assert_eq!(world.verify(signer)["goodFulls"], serde_json::json!([2]));
}

#[test]
fn in_a_folder() {
    let world = World::new();
    whole_story(&world, Path::new(&world.vault));
    // a younger etcd of the same name: its revisions are behind those of the vault, so a new timeline begins
    let other = World { vault: world.vault.clone(), ..World::new() };
    std::fs::copy(world.path("sign.key"), other.path("sign.key")).unwrap();
    let taken = other.take();
    assert_eq!(
        taken["manifest"]["timeline"]["parent"],
        world.json(&["show", "2", "--signing-key", &world.path("sign.key")])["manifest"]["timeline"]["id"]
    );
    // damage is found, named, and has its own exit code
    let part = taken["manifest"]["part"]["name"].as_str().unwrap();
    let path = Path::new(&world.vault).join("prod").join(part);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let verified = world.run(&["verify", "--signing-key", &world.path("sign.key")]);
    assert_eq!(verified.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&verified.stdout).contains(part));
}

#[test]
fn in_a_bucket() {
    let mut world = World::new();
    let root = tempfile::tempdir().unwrap();
    let port = testbed::ports::free();
    let _gateway = common::gateway(port, root.path(), "test-secret");
    std::fs::create_dir(root.path().join("backups")).unwrap();
    world.vault = "s3://backups/k8s".into();
    world.env = vec![
        ("AWS_ACCESS_KEY_ID", "test".into()),
        ("AWS_SECRET_ACCESS_KEY", "test-secret".into()),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_ENDPOINT", format!("http://127.0.0.1:{port}")),
        ("AWS_ALLOW_HTTP", "true".into()),
    ];
    whole_story(&world, &root.path().join("backups"));
    world.env[1].1 = "wrong".into();
    let refused = world.run(&["list", "--signing-key", &world.path("sign.key")]);
    assert!(error(&refused).contains("s3://backups/k8s"), "{}", error(&refused));
    assert!(!error(&refused).contains("test-secret"));
}

// What would make backups useless is refused before the first one: a foreign identity, no recipient, a lost key, no vault.
#[test]
fn wrong_keys_are_refused() {
    let world = World::new();
    let (key, other) = (world.path("sign.key"), world.path("other-identity.txt"));
    let refused =
        world.run(&["init", "--signing-key", &key, "--identity", &other, "--recipient", &world.recipient]);
    assert_eq!(refused.status.code(), Some(5));
    assert!(error(&refused).contains("age-keygen -y"), "{}", error(&refused));
    assert!(!Path::new(&key).exists(), "nothing was made");
    let args = ["run", "--endpoints", &world.member.url, "--signing-key", &key];
    assert_eq!(world.run(&args).status.code(), Some(2), "no recipient");
    let unsigned = world.run(&[&args[..], &["--recipient", &world.recipient]].concat());
    assert!(error(&unsigned).contains("backup init"), "{}", error(&unsigned));
    let made = world.init();
    assert_eq!(made["conditionalPutProved"], true);
    let empty = world.run(&["list", "--signing-key", &key]);
    assert!(error(&empty).contains("holds no backups"), "{}", error(&empty));
    world.take();
    // somebody else's signature does not count
    let stranger = World::new();
    let theirs = stranger.init();
    let list = world.json(&["list", "--signer", theirs["signer"].as_str().unwrap()]);
    assert_eq!(
        (list["timelines"].as_array().unwrap().len(), list["faults"].as_array().unwrap().len()),
        (0, 1)
    );
    let show = world.run(&["show", "1", "--signer", theirs["signer"].as_str().unwrap()]);
    assert!(error(&show).contains("not trusted"), "{}", error(&show));
}

// Killed wherever it happens to be, the next look finds only whole backups, and the next run works.
#[test]
fn killed_in_the_middle() {
    let world = World::new();
    let signer = world.init()["signer"].as_str().unwrap().to_owned();
    for round in 0..8u64 {
        let mut child =
            spawn(&mut world.backup(&world.take_args().iter().map(String::as_str).collect::<Vec<_>>()));
        std::thread::sleep(Duration::from_millis(20 + round * 45));
        child.0.kill().unwrap();
        child.0.wait().unwrap();
    }
    let last = world.take();
    let verified = world.verify(&signer);
    assert_eq!(verified["faults"], serde_json::json!([]));
    assert_eq!(verified["manifests"], last["manifest"]["sequence"], "one chain without a hole");
}

// The bundle of a host: its files, with their modes, and the links as links, come back by stock tools; a path that was asked
// for and is not there is an error; the fulls' cluster is the bundle's.
#[test]
fn a_bundle_comes_back_by_hand() {
    use std::os::unix::fs::PermissionsExt;
    assert!(testbed::needs::has("zstd"), "zstd is missing: apt-get install zstd");
    let world = World::new();
    let signer = world.init()["signer"].as_str().unwrap().to_owned();
    let taken = world.take();
    let files = world.dir.path().join("files");
    std::fs::create_dir_all(files.join("pki")).unwrap();
    std::fs::write(files.join("pki/sa.key"), "a secret key").unwrap();
    std::fs::set_permissions(files.join("pki/sa.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("sa.key", files.join("pki/current.key")).unwrap();
    let (key, scratch) = (world.path("sign.key"), world.path("scratch"));
    let bundle = |path: &str| {
        let keys = ["--signing-key", &key, "--recipient", &world.recipient, "--scratch", &scratch];
        world.run(&[&["bundle", "--endpoints", &world.member.url, "--path", path], &keys[..]].concat())
    };
    let missing = bundle("/no/such/path");
    assert!(error(&missing).contains("/no/such/path"), "{}", error(&missing));
    let put = bundle(files.to_str().unwrap());
    assert!(put.status.success(), "{}", error(&put));
    let put: Value = serde_json::from_slice(&put.stdout).unwrap();
    let id = |report: &Value| report["manifest"]["identity"]["etcdClusterId"].clone();
    assert_eq!(id(&put), id(&taken));
    assert_eq!(world.verify(&signer)["faults"], serde_json::json!([]));
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0, "nothing unencrypted is left");

    let part = Path::new(&world.vault).join("prod").join(put["manifest"]["part"]["name"].as_str().unwrap());
    let out = world.dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let script = "set -eu; \"$AGE\" -d -i \"$IDENTITY\" \"$PART\" | zstd -q -d | tar -x -C \"$OUT\"";
    let unpacked = Command::new("sh")
        .args(["-c", script])
        .env("AGE", age().unwrap().path("age"))
        .env("IDENTITY", world.path("identity.txt"))
        .env("PART", part)
        .env("OUT", &out)
        .output()
        .unwrap();
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    let back = out.join(files.strip_prefix("/").unwrap()).join("pki");
    assert_eq!(std::fs::read_to_string(back.join("sa.key")).unwrap(), "a secret key");
    assert_eq!(std::fs::metadata(back.join("sa.key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_link(back.join("current.key")).unwrap(), Path::new("sa.key"));
}

// The deep look: the newest full and what follows it are restored for trial, and a real etcd boots from them with the
// HashKV that the live one answers. Without an etcd in PATH the restore is still done, and the report says what was not.
#[test]
fn a_deep_look_restores_and_boots() {
    let world = World::new();
    let signer = world.init()["signer"].as_str().unwrap().to_owned();
    world.take();
    world.put(2);
    let taken = world.take();
    let (identity, scratch) = (world.path("identity.txt"), world.path("scratch"));
    let deep = |path: &str, more: &[&str]| {
        let args = [&["verify", "--deep", "--signer", &signer, "--scratch", &scratch], more].concat();
        world.backup(&args).env("PATH", path).output().unwrap()
    };
    assert_eq!(deep("/usr/bin", &[]).status.code(), Some(2), "it needs an identity");
    let etcd = world.member.etcd.etcd.parent().unwrap().as_str();
    for (path, version) in
        [(etcd, Value::from(world.member.etcd.version.as_str())), ("/nowhere", Value::Null)]
    {
        let output = deep(path, &["--identity", &identity]);
        assert!(output.status.success(), "{}", error(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let (deep, full) = (&report["deep"], &taken["manifest"]);
        assert_eq!((&deep["full"], &deep["revision"]), (&Value::from(2), &full["revision"]));
        assert_eq!((&deep["hashKv"], &deep["booted"]), (&full["hashKv"][0], &version));
        assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0, "nothing unencrypted is left");
    }
}

// A passphrase instead of keys: proved by `init`, and only it reads.
#[test]
fn with_a_passphrase() {
    let world = World::new();
    let (key, phrase, scratch) = (world.path("sign.key"), world.path("phrase"), world.path("scratch"));
    std::fs::write(&phrase, "correct horse battery staple\n").unwrap();
    let made = world.json(&["init", "--signing-key", &key, "--passphrase-file", &phrase]);
    assert_eq!(made["identityProved"], true);
    let encrypt = ["--signing-key", &key, "--passphrase-file", &phrase, "--scratch", &scratch];
    world.json(&[&["run", "--cluster", "prod", "--endpoints", &world.member.url], &encrypt[..]].concat());
    let verify = |flag: &str, file: &str| {
        world.run(&["verify", "--signing-key", &key, "--scratch", &scratch, flag, file])
    };
    let read = verify("--passphrase-file", &phrase);
    assert!(read.status.success(), "{}", error(&read));
    assert_eq!(verify("--identity", &world.path("identity.txt")).status.code(), Some(3));
    std::fs::write(&phrase, "wrong").unwrap();
    assert_eq!(verify("--passphrase-file", &phrase).status.code(), Some(3));
}

// A Kubernetes cluster has the name of its kube-system's UID, unless one is given; another cluster does not get into its folder.
#[test]
fn clusters_are_not_mixed() {
    let world = World::new();
    world.init();
    let namespace = |uid: &str| {
        let value =
            format!("{{\"kind\":\"Namespace\",\"apiVersion\":\"v1\",\"metadata\":{{\"uid\":\"{uid}\"}}}}");
        world.member.try_ctl(&["put", "/registry/namespaces/kube-system", &value]).unwrap();
    };
    let (one, other) = ("0b7b6c3e-5a51-4c5e-9d7e-2f1f6e0a7d11", "5e0f9b1a-1111-4c5e-9d7e-2f1f6e0a7d22");
    let (key, scratch) = (world.path("sign.key"), world.path("scratch"));
    let take = |cluster: &[&str]| {
        let mut args = vec!["run", "--endpoints", &world.member.url, "--recipient", &world.recipient];
        args.extend(["--signing-key", &key, "--scratch", &scratch]);
        world.run(&[&args[..], cluster].concat())
    };
    namespace(one);
    let first = take(&[]);
    assert!(first.status.success(), "{}", error(&first));
    let first: Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!(
        (&first["manifest"]["cluster"], &first["manifest"]["identity"]["kubeSystemUid"]),
        (&one.into(), &one.into())
    );
    namespace(other);
    let refused = take(&["--cluster", one]);
    assert_eq!(refused.status.code(), Some(5), "{}", error(&refused));
    assert!(error(&refused).contains("another cluster"));
    assert!(take(&[]).status.success(), "under its own name");
    // encrypted at rest: nobody knows whose it is, but it is backed up
    world.member.try_ctl(&["put", "/registry/namespaces/kube-system", "k8s:enc:aescbc:v1:key1:xxx"]).unwrap();
    let unknown = take(&["--cluster", one]);
    assert!(unknown.status.success(), "{}", error(&unknown));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("not known"));
    let several = world.run(&["list", "--signing-key", &key]);
    assert!(error(&several).contains("--cluster"), "{}", error(&several));
}

/// Every file below a folder, with its size and the time of its last change.
fn files(folder: &Path) -> std::collections::BTreeMap<std::path::PathBuf, (u64, std::time::SystemTime)> {
    let mut found = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.metadata().unwrap();
        if meta.is_dir() {
            found.extend(files(&path));
        }
        found.insert(path, (meta.len(), meta.modified().unwrap()));
    }
    found
}

// Before the first backup somebody wants to see what would happen: what is read, what is written, and where. Nothing is
// there afterwards that was not there before, and what is then done for real is what was said.
#[test]
fn a_dry_run_says_where_and_changes_nothing() {
    let world = World::new();
    let around = || {
        // etcd's own files change all the time
        let mut all = files(world.dir.path());
        all.retain(|path, _| !path.starts_with(world.dir.path().join("etcd")));
        all
    };
    let (key, identity) = (world.path("sign.key"), world.path("identity.txt"));
    let planned = |args: &[&str]| {
        let before = around();
        let plan = world.json(&[args, &["--dry-run"]].concat());
        assert_eq!(around(), before, "{args:?} changed something");
        assert_eq!(plan["kind"], "BackupPlan");
        plan
    };
    let places = |plan: &Value, field: &str| -> Vec<String> {
        let all = plan[field].as_array().unwrap();
        all.iter().map(|one| one["place"].as_str().unwrap().to_owned()).collect()
    };
    let init = ["init", "--signing-key", &key, "--identity", &identity, "--recipient", &world.recipient];
    let plan = planned(&init);
    assert_eq!(places(&plan, "writes")[0], key);
    let other = world.path("other-identity.txt");
    let foreign = ["init", "--signing-key", &key, "--identity", &other, "--recipient", &world.recipient];
    let refused = world.run(&[&foreign[..], &["--dry-run"]].concat());
    assert_eq!(refused.status.code(), Some(5), "a dry run refuses what a run refuses");
    world.init();
    assert_eq!(places(&planned(&init), "writes").len(), 1, "the key is there by now");

    let args = world.take_args();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let plan = planned(&args);
    assert!(places(&plan, "reads").contains(&world.member.url), "{plan:#}");
    let manifest = world.json(&args)["manifest"].clone();
    assert_written(&world, &plan, &manifest);

    let given = world.path("files");
    std::fs::create_dir(&given).unwrap();
    std::fs::write(Path::new(&given).join("sa.key"), "a secret key").unwrap();
    let scratch = world.path("scratch");
    let keys = ["--signing-key", &key, "--recipient", &world.recipient, "--scratch", &scratch];
    let bundle = [&["bundle", "--endpoints", &world.member.url, "--path", &given], &keys[..]].concat();
    let plan = planned(&bundle);
    assert!(places(&plan, "reads").contains(&given), "{plan:#}");
    assert!(!plan.to_string().contains("a secret key"));
    let manifest = world.json(&bundle)["manifest"].clone();
    assert_written(&world, &plan, &manifest);
}

/// What was written is what the plan said.
fn assert_written(world: &World, plan: &Value, manifest: &Value) {
    let part = manifest["part"]["name"].as_str().unwrap();
    let (folder, file) = part.split_once('/').unwrap();
    let part = format!("{}/prod/{folder}/UUID{}", world.vault, &file[36..]);
    let name = format!("{}/prod/manifest/{:012}.json", world.vault, manifest["sequence"].as_u64().unwrap());
    let writes = plan["writes"].as_array().unwrap();
    let planned: Vec<&str> = writes.iter().rev().take(2).map(|one| one["place"].as_str().unwrap()).collect();
    assert_eq!(planned, [name, part]);
}
