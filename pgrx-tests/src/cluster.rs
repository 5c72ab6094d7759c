//! A PostgreSQL cluster of a test's own, from initdb to removal.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::place::{as_server, clusters_dir, pg_bin, run};
use crate::session::Session;

/// The database that [`Cluster::create_database`] copies: one in which the extension has been created.
const TEMPLATE: &str = "with_credits";

/// Longest wait for anything a server is expected to do at once, generous for a machine under load.
const PATIENCE: Duration = Duration::from_secs(60);

/// What every cluster runs with unless the test says otherwise. `fsync` protects from the loss of the machine only, which no
/// test here causes: killing processes loses nothing that reached the kernel.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("fsync", "off"),
    ("max_connections", "100"),
    ("max_prepared_transactions", "10"),
    ("timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
];

/// A running server with its folder and unix socket. Dropping it stops the server at once and removes the folder.
pub struct Cluster {
    dir: PathBuf,
    template: Mutex<bool>,
}

impl Cluster {
    /// Makes and starts a cluster. `name` is for people who read the folder's name; `settings` go to `postgresql.conf`,
    /// over the harness's own.
    pub fn start(name: &str, settings: &[(&str, &str)]) -> Cluster {
        let cluster = Cluster::in_new_folder(name);
        run(as_server("cp").arg("-a").arg(seed()).arg(cluster.data()));
        cluster.configure(settings);
        cluster.launch();
        cluster
    }

    fn in_new_folder(name: &str) -> Cluster {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // numbered first and cut: a socket's path must stay under 108 bytes
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = clusters_dir().join(format!("{count}-{name:.20}"));
        run(as_server("mkdir").args(["-m", "700"]).arg(&dir));
        run(as_server("mkdir").arg(dir.join("socket")));
        running().lock().expect("no thread panics with this lock").insert(dir.clone());
        Cluster { dir, template: Mutex::new(false) }
    }

    /// Writes the settings, replacing those of an earlier call. They hold from the next start.
    pub fn configure(&self, settings: &[(&str, &str)]) {
        let socket = self.socket();
        let own = [("unix_socket_directories", socket.to_str().expect("our folders have plain names"))];
        let mut text = String::new();
        for (name, value) in SETTINGS.iter().chain(&own).chain(settings) {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        let file = self.data().join("harness.conf");
        // over the file that initdb's seed includes, so that owner and mode stay the server's
        fs::write(&file, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The folder of the unix socket: the `host` of a connection.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// A libpq connection string for programs and drivers, as the superuser `postgres`.
    pub fn connection_string(&self, database: &str) -> String {
        format!("host={} port=5432 user=postgres dbname={database}", self.socket().display())
    }

    /// What the server logged.
    pub fn log(&self) -> String {
        fs::read(self.dir.join("log")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn launch(&self) {
        let mut start = self.pg_ctl("start");
        start.arg("-l").arg(self.dir.join("log")).args(["-t", "60"]);
        let output = start.output().unwrap_or_else(|error| panic!("cannot run {start:?}: {error}"));
        assert!(output.status.success(), "the server in {} did not start:\n{}", self.dir.display(), self.log());
    }

    fn pg_ctl(&self, action: &str) -> Command {
        let mut command = as_server(pg_bin().join("pg_ctl"));
        command.arg(action).arg("-w").arg("-D").arg(self.data());
        command
    }

    /// Stops the server in an orderly way: sessions are ended, a checkpoint is written.
    pub fn stop(&self) {
        run(self.pg_ctl("stop").args(["-m", "fast"]));
    }

    /// Starts the server again after [`Cluster::stop`] or [`Cluster::kill9`], with recovery if it needs one.
    pub fn start_again(&self) {
        self.launch();
    }

    /// Stops and starts the server.
    pub fn restart(&self) {
        self.stop();
        self.launch();
    }

    /// Kills the whole server with SIGKILL, as the kernel does when memory runs out, and waits until all its processes are
    /// gone, so that its shared memory is free and it can be started again.
    pub fn kill9(&self) {
        let postmaster = self.postmaster_pid().expect("the server runs");
        // Stopped first: otherwise it may fork a process after we have listed its children.
        signal(postmaster, libc::SIGSTOP);
        let mut processes = children(postmaster);
        processes.push(postmaster);
        for process in &processes {
            signal(*process, libc::SIGKILL);
        }
        wait_until("all processes of the killed server are gone", PATIENCE, || processes.iter().all(|process| is_gone(*process)));
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        run(&mut self.pg_ctl("promote"));
    }

    /// A hot standby of this server, streaming from it. The server must run with the default `wal_level`.
    pub fn standby(&self, name: &str) -> Cluster {
        let standby = Cluster::in_new_folder(name);
        run(as_server(pg_bin().join("pg_basebackup"))
            .arg("-D")
            .arg(standby.data())
            .args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-d"])
            .arg(self.connection_string("postgres")));
        standby.configure(&[]);
        standby.launch();
        standby.wait_for(self);
        standby
    }

    /// Waits until this standby has replayed all that `primary` has written so far.
    pub fn wait_for(&self, primary: &Cluster) {
        let target = primary.session("postgres").one("select pg_current_wal_lsn()");
        let mut session = self.session("postgres");
        let replayed = format!("select coalesce(pg_last_wal_replay_lsn() >= '{target}', false)");
        wait_until("the standby has caught up", PATIENCE, || session.one(&replayed) == "t");
    }

    /// A session of the superuser `postgres`.
    pub fn session(&self, database: &str) -> Session {
        self.session_as(database, "postgres")
    }

    /// A session of any role that may log in.
    pub fn session_as(&self, database: &str, role: &str) -> Session {
        Session::connect(&self.socket(), database, role)
            .unwrap_or_else(|error| panic!("{role} cannot connect to {database}: {error}\n{}", self.log()))
    }

    /// Makes a database in which the extension has been created.
    pub fn create_database(&self, name: &str) {
        self.make_template();
        self.session("postgres").exec(&format!("create database \"{name}\" template {TEMPLATE}"));
    }

    /// A session in a new database with the extension. Give each test a name of its own: its rule.
    pub fn new_database(&self, name: &str) -> Session {
        self.create_database(name);
        self.session(name)
    }

    /// Makes a database without the extension.
    pub fn create_empty_database(&self, name: &str) {
        self.session("postgres").exec(&format!("create database \"{name}\" template template0"));
    }

    /// Creating the extension takes a while, copying a database does not: once for each cluster.
    fn make_template(&self) {
        let mut made = self.template.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !*made {
            self.create_empty_database(TEMPLATE);
            self.session(TEMPLATE).exec("create extension pg_credits");
            // no connections: not even autovacuum shall stand in the way of a copy
            self.session("postgres").exec(&format!("alter database {TEMPLATE} allow_connections false"));
            *made = true;
        }
    }

    /// Makes a role that may log in, if it is not there yet. Roles belong to the whole cluster.
    pub fn create_role(&self, name: &str) {
        let mut session = self.session("postgres");
        if let Err(error) = session.try_exec(&format!("create role \"{name}\" login")) {
            assert_eq!(error.sqlstate, "42710", "{error}");
        }
    }

    /// Dumps a database with `pg_dump -F <format>` (`c` custom, `p` plain) into a file of the cluster's folder.
    /// Whatever pg_dump says is a warning about the extension's tables, so it fails the test.
    pub fn dump(&self, database: &str, format: &str) -> PathBuf {
        let file = self.dir.join(format!("{database}.{format}.dump"));
        let mut command = self.program("pg_dump");
        command.args(["-F", format, "-f"]).arg(&file).arg(database);
        let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{command:?}: {}\n{stderr}", output.status);
        file
    }

    /// Restores a file of [`Cluster::dump`] into a new database, stopping at the first error.
    pub fn restore(&self, file: &Path, format: &str, database: &str) {
        self.create_empty_database(database);
        run(&mut match format {
            "p" => self.psql_file(database, file),
            _ => {
                let mut command = self.program("pg_restore");
                command.args(["--exit-on-error", "-d", database]).arg(file);
                command
            }
        });
    }

    fn psql_file(&self, database: &str, file: &Path) -> Command {
        let mut command = self.program("psql");
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-f"]).arg(file);
        command
    }

    /// A client program of the server (psql, pgbench, …) that will connect to this cluster as `postgres`.
    pub fn program(&self, name: &str) -> Command {
        let mut command = as_server(pg_bin().join(name));
        command.env("PGHOST", self.socket()).env("PGUSER", "postgres");
        command
    }

    /// The postmaster's process id, from the file that it writes into its own data folder.
    pub fn postmaster_pid(&self) -> Option<i32> {
        postmaster_pid(&self.dir)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        remove(&self.dir);
        if let Ok(mut running) = running().lock() {
            running.remove(&self.dir);
        }
    }
}

/// The cluster shared by all tests of this process that need no settings of their own, stopped when the process ends.
pub fn shared_cluster() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start("shared", &[]))
}

/// Asks again and again until the condition holds; panics after `deadline`.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "not after {} s: {what}", deadline.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A data folder fresh from initdb, made once in a process and copied for each cluster: the copy takes a tenth of the time.
fn seed() -> &'static Path {
    static SEED: OnceLock<PathBuf> = OnceLock::new();
    SEED.get_or_init(|| {
        let seed = clusters_dir().join("seed");
        run(as_server(pg_bin().join("initdb"))
            .arg("-D")
            .arg(&seed)
            .args("-U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync".split(' ')));
        let conf = seed.join("postgresql.conf");
        run(as_server("sh").arg("-c").arg(format!(
            "echo \"include 'harness.conf'\" >> '{}' && touch '{}'",
            conf.display(),
            seed.join("harness.conf").display()
        )));
        seed
    })
}

/// The folders of the clusters of this process. Statics are never dropped, so whatever is left here is removed at exit.
fn running() -> &'static Mutex<HashSet<PathBuf>> {
    static RUNNING: OnceLock<Mutex<HashSet<PathBuf>>> = OnceLock::new();
    RUNNING.get_or_init(|| {
        // Orphaned servers become our children instead of process 1's, so that we can take note of their death at once: as
        // long as nobody has, PostgreSQL believes that a killed postmaster still runs and refuses to start.
        // SAFETY: the flag changes who adopts our descendants, nothing else.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
        // SAFETY: the function is a plain `extern "C" fn` that does not unwind, and registering it has no preconditions.
        unsafe { libc::atexit(remove_all_at_exit) };
        Mutex::new(HashSet::new())
    })
}

extern "C" fn remove_all_at_exit() {
    // a panic must not leave a function that C calls
    let _ = std::panic::catch_unwind(|| {
        if let Ok(running) = running().lock() {
            running.iter().for_each(|dir| remove(dir));
        }
        let _ = fs::remove_dir_all(clusters_dir());
    });
}

/// Stops the server of the folder, if one runs, without a checkpoint, and deletes the folder.
/// Failures are passed over: this runs while a test may already be failing.
fn remove(dir: &Path) {
    if postmaster_pid(dir).is_some() {
        let _ = as_server(pg_bin().join("pg_ctl")).args(["stop", "-w", "-m", "immediate", "-D"]).arg(dir.join("data")).output();
    }
    if std::env::var_os("PG_CREDITS_KEEP").is_none() {
        let _ = fs::remove_dir_all(dir);
    }
}

fn postmaster_pid(dir: &Path) -> Option<i32> {
    fs::read_to_string(dir.join("data/postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()
}

fn signal(process: i32, signal: i32) {
    // SAFETY: kill has no memory effects; the process is one of our own cluster's, listed a moment ago.
    unsafe { libc::kill(process, signal) };
}

/// Whether a killed process has left the process table, taking note of its death if that is ours to do.
fn is_gone(process: i32) -> bool {
    // SAFETY: a null status is allowed; the process is never a child that std waits for, only a server's.
    unsafe { libc::waitpid(process, std::ptr::null_mut(), libc::WNOHANG) };
    !Path::new("/proc").join(process.to_string()).exists()
}

fn children(parent: i32) -> Vec<i32> {
    let processes = fs::read_dir("/proc").expect("/proc is there");
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn parent_of(process: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // pid (name) state ppid …; the name may hold spaces and parentheses
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
