vimana_driver::conformance_suite!(crate::host::QemuHost);
