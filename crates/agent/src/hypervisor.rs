//! Opens the driver that was asked for.

use std::path::Path;
use std::sync::Arc;

use vimana_driver::HostDriver;
use vimana_driver_sim::{SimDriver, SimHost};

use crate::args::{Args, Driver};

pub async fn open(args: &Args, _data_dir: &Path) -> anyhow::Result<Arc<dyn HostDriver>> {
    match args.driver {
        Driver::Qemu => anyhow::bail!("not wired"),
        Driver::Sim => Ok(Arc::new(SimDriver::new(SimHost::new()))),
    }
}
