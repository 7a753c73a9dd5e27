//! The simulated driver keeps every promise of the trait.

#![expect(clippy::unwrap_used, reason = "tests, and what helps them")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use vimana_driver::conformance::Harness;
use vimana_driver::{Fault, FaultKind, HostDriver, ImageRef};
use vimana_driver_sim::{Call, SimDriver, SimHost};
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{ImageId, VmId, VolumeId};

struct Sim(Arc<SimHost>);

#[async_trait]
impl Harness for Sim {
    async fn new() -> Self {
        let host = SimHost::new();
        host.add_datastore(DatastoreName::new("other").unwrap());
        Self(host)
    }

    async fn beside(&self) -> Self {
        let beside = Self(SimHost::logged("beside", Arc::clone(self.0.log())));
        beside.0.add_datastore(beside.datastore());
        beside
    }

    async fn driver(&self) -> Arc<dyn HostDriver> {
        Arc::new(SimDriver::new(Arc::clone(&self.0)))
    }

    async fn driver_on_full_disk(&self) -> Arc<dyn HostDriver> {
        let fault = Fault::new(FaultKind::NoSpace, "the host's disk is full");
        for call in [
            Call::Prepare,
            Call::Save,
            Call::Import,
            Call::CreateVolume,
            Call::CopyVolume,
        ] {
            self.0.fail_next(call, fault.clone());
        }
        self.driver().await
    }

    fn image(&self) -> (ImageRef, PathBuf) {
        let image = ImageRef {
            id: ImageId::from_parts(1, [0; 10]),
            format: ImageFormat::Raw,
            size_bytes: 512,
            sha256: "0".repeat(64),
        };
        (image, PathBuf::from("no-such-file"))
    }

    fn bad_image(&self) -> (ImageRef, PathBuf) {
        let fault = Fault::new(FaultKind::BadImage, "the image is not qcow2");
        self.0.fail_next(Call::Prepare, fault);
        self.image()
    }

    fn datastore(&self) -> DatastoreName {
        DatastoreName::new("other").unwrap()
    }

    fn home(&self, vm: VmId) -> DatastoreName {
        self.0.datastore(vm).unwrap()
    }

    fn resources(&self) -> Resources {
        Resources {
            vcpus: 1,
            memory_mib: MiB(32),
            disk_mib: MiB(1),
        }
    }

    fn left_behind(&self, vm: VmId) -> Vec<String> {
        self.0.left_behind(vm)
    }

    async fn crash(&self, vm: VmId) {
        assert!(self.0.crash(vm, "the simulated machine crashed"));
    }

    fn carry(&self, file: &Path, to: &Self) -> PathBuf {
        let place = Path::new("/carried").join(file.file_name().unwrap());
        to.0.write_file(&place, self.0.read_file(file).unwrap());
        place
    }

    fn scribble(&self, volume: VolumeId) {
        self.0.scribble(volume);
    }

    fn reads_zeros(&self, volume: VolumeId) -> bool {
        self.0.reads_zeros(volume).unwrap()
    }

    fn read_file(&self, path: &Path) -> Vec<u8> {
        self.0.read_file(path).unwrap().to_vec()
    }

    fn boots_kept(&self, chain: &[Vec<u8>]) -> char {
        char::from(b'@' + u8::try_from(value(chain)).unwrap())
    }

    fn zeros_kept(&self, chain: &[Vec<u8>]) -> bool {
        value(chain) == 0
    }

    fn copy_reads_zeros(&self, copy: &Path) -> bool {
        let copy = self.0.read_file(copy).unwrap();
        !copy.windows(7).any(|at| at == b"written")
    }

    fn copies(&self) -> Vec<String> {
        let copies = self.0.copies().into_iter();
        copies.map(|path| path.display().to_string()).collect()
    }

    async fn plugged(&self, driver: &dyn HostDriver, vm: VmId) -> usize {
        let volumes = driver.volumes().await.unwrap();
        let ours = volumes.iter().filter(|v| v.attached_to == Some(vm));
        ours.count()
    }

    async fn guest_off(&self, _driver: &dyn HostDriver, vm: VmId) {
        assert!(self.0.guest_power_off(vm));
    }

    async fn ignore_shutdown(&self, _driver: &dyn HostDriver, vm: VmId) {
        self.0.ignore_shutdown(vm, true);
    }
}

/// What the last file says, where each lies over the one before it.
fn value(chain: &[Vec<u8>]) -> u32 {
    let mut below = "all".to_owned();
    let mut value = 0;
    for content in chain {
        let text = std::str::from_utf8(content).unwrap();
        let (of, said) = text.trim_end().split_once(": ").unwrap();
        let (of, over) = of.split_once(", ").unwrap();
        assert_eq!(over, below, "it lies over another");
        let (_, backup) = of.split_once(" in ").unwrap();
        below = format!("since {backup}");
        value = said.parse().unwrap();
    }
    value
}

vimana_driver::conformance_suite!(Sim);
