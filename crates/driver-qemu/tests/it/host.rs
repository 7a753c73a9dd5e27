//! A host to try the driver on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use vimana_driver::conformance::{Harness, guest_answers, new_spec, read_until, type_text};
use vimana_driver::{HostDriver, ImageRef};
use vimana_driver_qemu::{AcceleratorSetting, DEAF, OFF, QemuConfig, QemuDriver, boot_sector};
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{ImageId, VmId, VolumeId};

pub struct QemuHost {
    dir: TempDir,
}

impl QemuHost {
    pub fn config(&self) -> QemuConfig {
        config_in(self.dir.path())
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub fn size() -> Resources {
        Resources {
            vcpus: 1,
            memory_mib: MiB(32),
            disk_mib: MiB(1),
        }
    }

    pub async fn open(&self, config: QemuConfig) -> Arc<QemuDriver> {
        Arc::new(QemuDriver::open(config).await.unwrap())
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn vm_dir(&self, vm: VmId) -> PathBuf {
        self.config().state_dir.join(vm.to_string())
    }

    fn volume_file(&self, volume: VolumeId) -> PathBuf {
        let config = self.config();
        let mut places = config.datastores.into_values().chain([config.state_dir]);
        let file = |place: PathBuf| place.join(volume.to_string()).join("volume.qcow2");
        places
            .find_map(|place| Some(file(place)).filter(|file| file.exists()))
            .unwrap()
    }

    /// How many volumes the VM's process has open.
    fn files_open(&self, vm: VmId) -> usize {
        let pids = self.processes(vm);
        assert_eq!(pids.len(), 1);
        let open = fs::read_dir(format!("/proc/{}/fd", pids[0])).unwrap();
        let files = open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        let mut volumes: Vec<PathBuf> = files
            .filter(|file| file.ends_with("volume.qcow2"))
            .collect();
        volumes.sort();
        volumes.dedup();
        volumes.len()
    }

    /// What a chain of files reads, each over the one before it.
    fn content(&self, chain: &[Vec<u8>]) -> Vec<u8> {
        let mut node = serde_json::Value::Null;
        for (n, bytes) in chain.iter().enumerate() {
            let file = self.file(&format!("link-{n}"));
            fs::write(&file, bytes).unwrap();
            let file = serde_json::json!({"driver": "file", "filename": file});
            node = serde_json::json!({"driver": "qcow2", "file": file, "backing": node});
        }
        let raw = self.file("raw");
        let did = Command::new("qemu-img")
            .args(["convert", "-O", "raw", &format!("json:{node}")])
            .arg(&raw)
            .output()
            .unwrap();
        assert!(did.status.success(), "{did:?}");
        fs::read(raw).unwrap()
    }

    /// Processes in a VM's directory, removed or not.
    pub fn processes(&self, vm: VmId) -> Vec<Pid> {
        processes_below(&self.vm_dir(vm))
    }
}

impl Drop for QemuHost {
    /// Machines outlive their driver, but not their test.
    fn drop(&mut self) {
        for pid in processes_below(self.dir.path()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

pub fn config_in(dir: &Path) -> QemuConfig {
    let mut config = QemuConfig::new(dir.join("vms"));
    config.accelerator = AcceleratorSetting::Tcg;
    config.disk_reserve = MiB(0);
    config
        .datastores
        .insert(other_datastore(), dir.join("other"));
    config
}

/// A machine that runs and has printed something.
pub async fn run(host: &QemuHost, driver: &dyn HostDriver) -> VmId {
    let spec = new_spec(host);
    driver.prepare(&spec, &host.image().1).await.unwrap();
    driver.boot(spec.vm_id, 1, &spec.resources).await.unwrap();
    guest_answers(driver, spec.vm_id).await;
    spec.vm_id
}

pub fn other_datastore() -> DatastoreName {
    DatastoreName::new("other").unwrap()
}

pub fn processes_below(dir: &Path) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(|pid| {
            let cwd = fs::read_link(format!("/proc/{pid}/cwd"));
            cwd.is_ok_and(|cwd| cwd.starts_with(dir))
        })
        .collect()
}

#[async_trait]
impl Harness for QemuHost {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("image"), boot_sector()).unwrap();
        fs::create_dir(dir.path().join("other")).unwrap();
        Self { dir }
    }

    async fn beside(&self) -> Self {
        Self::new().await
    }

    async fn driver(&self) -> Arc<dyn HostDriver> {
        self.open(self.config()).await
    }

    async fn driver_on_full_disk(&self) -> Arc<dyn HostDriver> {
        let mut config = self.config();
        config.disk_reserve = MiB(1 << 40);
        self.open(config).await
    }

    fn image(&self) -> (ImageRef, PathBuf) {
        let image = ImageRef {
            id: ImageId::from_parts(1, [0; 10]),
            format: ImageFormat::Raw,
            size_bytes: 512,
            sha256: "0".repeat(64),
        };
        (image, self.file("image"))
    }

    fn bad_image(&self) -> (ImageRef, PathBuf) {
        let (mut image, path) = self.image();
        image.format = ImageFormat::Qcow2;
        (image, path)
    }

    fn resources(&self) -> Resources {
        Self::size()
    }

    fn datastore(&self) -> DatastoreName {
        other_datastore()
    }

    fn home(&self, vm: VmId) -> DatastoreName {
        let dir = self.config().state_dir.join(vm.to_string());
        let there = self.file("other").join(vm.to_string());
        let names = fs::read_dir(&dir).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let disks: Vec<_> = names.filter(|name| name.starts_with("disk")).collect();
        assert_eq!(disks, ["disk.qcow2"]);
        assert!(!dir.join("moving.json").exists());
        match fs::read_link(dir.join("disk.qcow2")) {
            Ok(disk) => {
                assert_eq!(disk, there.join("disk.qcow2"));
                other_datastore()
            }
            Err(_) => {
                assert!(!there.exists());
                DatastoreName::local()
            }
        }
    }

    fn left_behind(&self, vm: VmId) -> Vec<String> {
        let mut left: Vec<String> = Vec::new();
        for entry in fs::read_dir(self.config().state_dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if !name.starts_with(&vm.to_string()) {
                continue;
            }
            for file in fs::read_dir(entry.path()).unwrap() {
                let file = file.unwrap().file_name().into_string().unwrap();
                left.push(format!("{name}/{file}"));
            }
            left.push(name);
        }
        left.extend(
            self.processes(vm)
                .iter()
                .map(|pid| format!("process {pid}")),
        );
        left.sort();
        left
    }

    async fn crash(&self, vm: VmId) {
        let pids = self.processes(vm);
        assert_eq!(pids.len(), 1);
        kill_process(pids[0], Signal::KILL).unwrap();
    }

    fn carry(&self, file: &Path, to: &Self) -> PathBuf {
        // Of which all volumes have the same name.
        let name = file.strip_prefix(self.dir.path()).unwrap_or(file);
        let place = to.file(&name.to_str().unwrap().replace('/', "-"));
        fs::copy(file, &place).unwrap();
        place
    }

    fn scribble(&self, volume: VolumeId) {
        let write = ["-f", "qcow2", "-c", "write -P 0x5a 0 4k"];
        let did = Command::new("qemu-io")
            .args(write)
            .arg(self.volume_file(volume))
            .output();
        assert!(did.unwrap().status.success());
    }

    fn reads_zeros(&self, volume: VolumeId) -> bool {
        self.copy_reads_zeros(&self.volume_file(volume))
    }

    fn copy_reads_zeros(&self, copy: &Path) -> bool {
        let raw = self.file("raw");
        let did = Command::new("qemu-img")
            .args(["convert", "-f", "qcow2", "-O", "raw"])
            .args([copy, &raw])
            .output();
        assert!(did.unwrap().status.success());
        fs::read(raw).unwrap().iter().all(|byte| *byte == 0)
    }

    fn read_file(&self, path: &Path) -> Vec<u8> {
        fs::read(path).unwrap()
    }

    fn boots_kept(&self, chain: &[Vec<u8>]) -> char {
        char::from(b'@' + self.content(chain)[512])
    }

    fn zeros_kept(&self, chain: &[Vec<u8>]) -> bool {
        self.content(chain).iter().all(|byte| *byte == 0)
    }

    fn copies(&self) -> Vec<String> {
        let entries = fs::read_dir(self.config().state_dir).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".copy")).collect()
    }

    async fn plugged(&self, _driver: &dyn HostDriver, vm: VmId) -> usize {
        self.files_open(vm)
    }

    async fn guest_off(&self, driver: &dyn HostDriver, vm: VmId) {
        type_text(driver, vm, &[OFF]).await;
    }

    async fn ignore_shutdown(&self, driver: &dyn HostDriver, vm: VmId) {
        let mut line = driver.serial(vm).await.unwrap();
        type_text(driver, vm, &[DEAF]).await;
        read_until(&mut line, "\u{7}").await;
    }
}
