//! Servers of others, run for one test.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A server and what it serves.
pub struct Peer {
    children: Vec<Child>,
    pub port: u16,
    dir: TempDir,
    /// One at a time on this machine.
    _lock: Option<File>,
}

impl Peer {
    /// nginx, with these lines in its only `server`.
    pub fn nginx(lines: &str) -> Self {
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        std::fs::create_dir(dir.path().join("files")).unwrap();
        let at = dir.path().display();
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;
             events {{ }}
             http {{
                 access_log off;
                 client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;
                 fastcgi_temp_path {at}/fastcgi; scgi_temp_path {at}/scgi; uwsgi_temp_path {at}/uwsgi;
                 server {{ listen 127.0.0.1:{port}; root {at}/files; {lines} }}
             }}"
        );
        std::fs::write(dir.path().join("nginx.conf"), config).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(dir.path().join("nginx.conf"));
        command.arg("-e").arg(dir.path().join("error.log"));
        Self::run(vec![command], port, dir, None)
    }

    /// Debian's pyftpdlib, with these arguments. It tells everyone to get the data from
    /// an address that is not its own.
    pub fn ftp(arguments: &[&str]) -> Self {
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        std::fs::create_dir(dir.path().join("files")).unwrap();
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-m", "pyftpdlib", "-i", "127.0.0.1", "-n", "10.255.255.1"]);
        command.arg("-p").arg(port.to_string());
        command.arg("-d").arg(dir.path().join("files"));
        command.args(arguments);
        Self::run(vec![command], port, dir, None)
    }

    /// NFS-Ganesha, and the portmapper it announces itself to.
    pub fn nfs() -> Self {
        let lock = File::create(std::env::temp_dir().join("vimana-test-nfs.lock")).unwrap();
        lock.lock().unwrap();
        let (dir, port, mount_port) = (TempDir::new().unwrap(), free_port(), free_port());
        std::fs::create_dir(dir.path().join("files")).unwrap();
        let at = dir.path().display();
        let config = format!(
            "NFS_CORE_PARAM {{
                 NFS_Port = {port}; MNT_Port = {mount_port}; Bind_addr = 127.0.0.1;
                 Protocols = 3; Enable_NLM = false; Enable_RQUOTA = false; mount_path_pseudo = false;
             }}
             EXPORT {{
                 Export_Id = 1; Path = {at}/files; Pseudo = /files; Access_Type = RO;
                 Squash = No_Root_Squash; Protocols = 3; Attr_Expiration_Time = 0; Transports = TCP; SecType = sys;
                 FSAL {{ Name = VFS; }}
             }}"
        );
        std::fs::write(dir.path().join("ganesha.conf"), config).unwrap();
        let mut portmapper = Command::new("rpcbind");
        portmapper.args(["-f", "-w"]);
        let mut ganesha = Command::new("ganesha.nfsd");
        ganesha
            .arg("-F")
            .arg("-f")
            .arg(dir.path().join("ganesha.conf"));
        ganesha.arg("-L").arg(dir.path().join("log"));
        ganesha.arg("-p").arg(dir.path().join("pid"));
        let mut commands = Vec::new();
        if TcpStream::connect((Ipv4Addr::LOCALHOST, 111)).is_err() {
            commands.push(portmapper);
        }
        commands.push(ganesha);
        Self::run(commands, port, dir, Some(lock))
    }

    fn run(commands: Vec<Command>, port: u16, dir: TempDir, lock: Option<File>) -> Self {
        let mut peer = Self {
            children: Vec::new(),
            port,
            dir,
            _lock: lock,
        };
        let count = commands.len();
        for (index, mut command) in commands.into_iter().enumerate() {
            let log = File::create(peer.dir.path().join("output")).unwrap();
            command
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log);
            peer.children.push(command.spawn().unwrap());
            let ready = if index + 1 == count { port } else { 111 };
            peer.until_it_listens(ready);
        }
        peer
    }

    fn until_it_listens(&mut self, port: u16) {
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = self.children.last_mut().unwrap().try_wait().unwrap();
            let output = std::fs::read_to_string(self.dir.path().join("output")).unwrap();
            assert!(ended.is_none(), "the server ended: {output}");
            assert!(begun.elapsed() < Duration::from_secs(60), "{output}");
            // Nothing tells when another's server listens.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.files().join(name)
    }

    pub fn kill(&mut self) {
        for child in &mut self.children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        self.children.clear();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}
