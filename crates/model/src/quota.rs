//! What a tenant, or one of its users, may have at most, and what they have.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{DatastoreName, UserName};
use crate::tenant::TenantView;
use crate::unit::MiB;
use crate::{Error, FieldError, Result, TenantId};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// VMs that are not done.
    Vms,
    /// Those of them that run, or are to.
    RunningVms,
    Vcpus,
    RunningVcpus,
    MemoryMib,
    RunningMemoryMib,
    /// The VMs' own disks.
    DiskMib,
    Volumes,
    /// The volumes' sizes, in one datastore or in all.
    VolumeMib,
    Snapshots,
    Backups,
    /// What the backups have in their datastores.
    BackupBytes,
    Images,
    /// What the images have in the repository, those in the trash among them.
    ImageBytes,
    /// Operations in flight that take something; what gives back, and what the
    /// provider does, is none of them.
    Operations,
}

/// What an amount counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Pieces,
    Mib,
    Bytes,
}

impl Measure {
    pub const ALL: [Self; 15] = [
        Self::Vms,
        Self::RunningVms,
        Self::Vcpus,
        Self::RunningVcpus,
        Self::MemoryMib,
        Self::RunningMemoryMib,
        Self::DiskMib,
        Self::Volumes,
        Self::VolumeMib,
        Self::Snapshots,
        Self::Backups,
        Self::BackupBytes,
        Self::Images,
        Self::ImageBytes,
        Self::Operations,
    ];

    /// Those that VMs count.
    pub const OF_VMS: [Self; 7] = [
        Self::Vms,
        Self::RunningVms,
        Self::Vcpus,
        Self::RunningVcpus,
        Self::MemoryMib,
        Self::RunningMemoryMib,
        Self::DiskMib,
    ];

    /// The name on the wire and in the database.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Vms => "vms",
            Self::RunningVms => "running_vms",
            Self::Vcpus => "vcpus",
            Self::RunningVcpus => "running_vcpus",
            Self::MemoryMib => "memory_mib",
            Self::RunningMemoryMib => "running_memory_mib",
            Self::DiskMib => "disk_mib",
            Self::Volumes => "volumes",
            Self::VolumeMib => "volume_mib",
            Self::Snapshots => "snapshots",
            Self::Backups => "backups",
            Self::BackupBytes => "backup_bytes",
            Self::Images => "images",
            Self::ImageBytes => "image_bytes",
            Self::Operations => "operations",
        }
    }

    /// The name people see, within a sentence.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vms => "VMs",
            Self::RunningVms => "running VMs",
            Self::Vcpus => "vCPUs",
            Self::RunningVcpus => "running vCPUs",
            Self::MemoryMib => "memory",
            Self::RunningMemoryMib => "running memory",
            Self::DiskMib => "disk of VMs",
            Self::Volumes => "volumes",
            Self::VolumeMib => "volume storage",
            Self::Snapshots => "snapshots",
            Self::Backups => "backups",
            Self::BackupBytes => "backup storage",
            Self::Images => "images",
            Self::ImageBytes => "image storage",
            Self::Operations => "operations at once",
        }
    }

    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::MemoryMib | Self::RunningMemoryMib | Self::DiskMib | Self::VolumeMib => Unit::Mib,
            Self::BackupBytes | Self::ImageBytes => Unit::Bytes,
            Self::Vms
            | Self::RunningVms
            | Self::Vcpus
            | Self::RunningVcpus
            | Self::Volumes
            | Self::Snapshots
            | Self::Backups
            | Self::Images
            | Self::Operations => Unit::Pieces,
        }
    }

    /// An amount for people: `4`, `512 MiB`, `1.5 GiB`.
    #[must_use]
    pub fn show(self, amount: u64) -> String {
        match self.unit() {
            Unit::Pieces => amount.to_string(),
            Unit::Mib => MiB(amount).to_string(),
            Unit::Bytes if amount > 0 && amount < 1 << 20 => format!("{amount} B"),
            Unit::Bytes => MiB::from_bytes(amount).to_string(),
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names nothing that is counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not something that is counted; what is: {}", slugs())]
pub struct InvalidMeasure;

fn slugs() -> String {
    Measure::ALL.map(Measure::slug).join(", ")
}

impl FromStr for Measure {
    type Err = InvalidMeasure;

    fn from_str(text: &str) -> Result<Self, InvalidMeasure> {
        let mut all = Self::ALL.into_iter();
        all.find(|measure| measure.slug() == text)
            .ok_or(InvalidMeasure)
    }
}

/// What is counted, and where: sizes of volumes are counted in all datastores,
/// and in each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counted {
    pub measure: Measure,
    /// Absent for all of them.
    pub datastore: Option<DatastoreName>,
}

impl Counted {
    /// As it is read: `vms`, `volume_mib@fast`.
    #[must_use]
    pub fn slug(&self) -> String {
        match &self.datastore {
            Some(datastore) => format!("{}@{datastore}", self.measure.slug()),
            None => self.measure.slug().to_owned(),
        }
    }
}

impl From<Measure> for Counted {
    fn from(measure: Measure) -> Self {
        Self {
            measure,
            datastore: None,
        }
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.datastore {
            None => self.measure.fmt(f),
            Some(datastore) => write!(f, "{} in datastore `{datastore}`", self.measure),
        }
    }
}

/// On the command line: `vms`, `volume_mib@fast`.
impl FromStr for Counted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (measure, datastore) = match text.split_once('@') {
            Some((measure, datastore)) => (measure, Some(datastore)),
            None => (text, None),
        };
        let datastore = datastore.map(DatastoreName::new).transpose();
        Ok(Self {
            measure: measure
                .parse()
                .map_err(|error: InvalidMeasure| error.to_string())?,
            datastore: datastore.map_err(|error| error.to_string())?,
        })
    }
}

/// The most of something. On the wire a number, or `"unlimited"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    AtMost(u64),
    #[default]
    Unlimited,
}

/// The word for it, on the wire and on the command line.
const UNLIMITED: &str = "unlimited";

/// The largest limit that is a number: databases and browsers hold no more.
pub const MAX_LIMIT: u64 = 1 << 53;

impl Limit {
    #[must_use]
    pub const fn most(self) -> Option<u64> {
        match self {
            Self::AtMost(most) => Some(most),
            Self::Unlimited => None,
        }
    }

    #[must_use]
    pub fn allows(self, amount: u64) -> bool {
        self.most().is_none_or(|most| amount <= most)
    }

    /// For people.
    #[must_use]
    pub fn show(self, measure: Measure) -> String {
        match self {
            Self::AtMost(most) => measure.show(most),
            Self::Unlimited => "no limit".to_owned(),
        }
    }
}

impl From<Option<u64>> for Limit {
    fn from(most: Option<u64>) -> Self {
        most.map_or(Self::Unlimited, Self::AtMost)
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == UNLIMITED {
            return Ok(Self::Unlimited);
        }
        let most = text.parse().ok().filter(|most| *most <= MAX_LIMIT);
        most.map(Self::AtMost)
            .ok_or_else(|| format!("a number up to {MAX_LIMIT}, or `{UNLIMITED}`"))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a number that is not negative, or \"unlimited\""
)]
enum LimitOnWire {
    Number(u64),
    Word(Word),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Unlimited,
}

impl Serialize for Limit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AtMost(most) => LimitOnWire::Number(*most),
            Self::Unlimited => LimitOnWire::Word(Word::Unlimited),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match LimitOnWire::deserialize(deserializer)? {
            LimitOnWire::Number(most) => Self::AtMost(most),
            LimitOnWire::Word(Word::Unlimited) => Self::Unlimited,
        })
    }
}

#[cfg(feature = "openapi")]
mod schema {
    use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, SchemaType, Type};
    use utoipa::openapi::{RefOr, Schema};

    impl utoipa::PartialSchema for super::Limit {
        fn schema() -> RefOr<Schema> {
            let number = ObjectBuilder::new()
                .schema_type(SchemaType::Type(Type::Integer))
                .minimum(Some(0.0));
            let word = ObjectBuilder::new()
                .schema_type(SchemaType::Type(Type::String))
                .enum_values(Some([super::UNLIMITED]));
            OneOfBuilder::new().item(number).item(word).into()
        }
    }

    impl utoipa::ToSchema for super::Limit {}
}

/// Whose limits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Every tenant's that has none of its own.
    AllTenants,
    Tenant(TenantId),
    /// Every user's of the tenant that has none of their own.
    AllUsers(TenantId),
    User(TenantId, UserName),
}

/// The limits of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct QuotaLimit {
    pub measure: Measure,
    /// For the sizes of volumes in this datastore alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<DatastoreName>,
    /// What is above it is warned of, and done.
    #[serde(default)]
    pub soft: Limit,
    /// What would be above it is refused.
    #[serde(default)]
    pub hard: Limit,
}

impl QuotaLimit {
    #[must_use]
    pub fn counted(&self) -> Counted {
        Counted {
            measure: self.measure,
            datastore: self.datastore.clone(),
        }
    }
}

/// The form that gives a tenant, a user, or all of them their limits: those that
/// are left out are inherited from the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SetQuota {
    pub limits: Vec<QuotaLimit>,
}

impl SetQuota {
    /// # Errors
    /// `Invalid` naming each limit at fault.
    pub fn check(&self) -> Result<()> {
        let mut wrong = Vec::new();
        let mut seen: Vec<Counted> = Vec::new();
        for (n, limit) in self.limits.iter().enumerate() {
            let counted = limit.counted();
            let mut refuse = |field: &str, message: String| {
                wrong.push(FieldError::new(&format!("limits[{n}].{field}"), message));
            };
            if limit.datastore.is_some() && limit.measure != Measure::VolumeMib {
                let slug = limit.measure.slug();
                let message = format!("`{slug}` is not counted by datastore; leave it out");
                refuse("datastore", message);
            }
            if limit.soft != Limit::Unlimited && limit.soft > limit.hard {
                let (soft, hard) = (limit.soft.show(limit.measure), limit.hard);
                let hard = hard.show(limit.measure);
                refuse("soft", format!("{soft} is above the hard limit of {hard}"));
            }
            for (field, limit) in [("soft", limit.soft), ("hard", limit.hard)] {
                if limit.most().is_some_and(|most| most > MAX_LIMIT) {
                    refuse(field, format!("at most {MAX_LIMIT}"));
                }
            }
            if seen.contains(&counted) {
                refuse(
                    "measure",
                    format!("`{}` is limited twice", limit.measure.slug()),
                );
            }
            seen.push(counted);
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Error::invalid(wrong))
        }
    }
}

/// One thing that is counted, with its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QuotaLine {
    pub measure: Measure,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<DatastoreName>,
    pub used: u64,
    pub soft: Limit,
    pub hard: Limit,
    /// The limits are the default ones.
    pub inherited: bool,
}

/// How much of a limit is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Below both limits.
    Free,
    /// Above the soft limit.
    Warned,
    /// Nothing is left.
    Full,
}

impl QuotaLine {
    #[must_use]
    pub fn counted(&self) -> Counted {
        Counted {
            measure: self.measure,
            datastore: self.datastore.clone(),
        }
    }

    /// Its limits, as they are set.
    #[must_use]
    pub fn limit(&self) -> QuotaLimit {
        QuotaLimit {
            measure: self.measure,
            datastore: self.datastore.clone(),
            soft: self.soft,
            hard: self.hard,
        }
    }

    /// How much would be used with so much more of it.
    #[must_use]
    pub const fn with(&self, more: u64) -> u64 {
        self.used.saturating_add(more)
    }

    /// What that amount means.
    #[must_use]
    pub fn level(&self, amount: u64) -> Level {
        if self.hard.most().is_some_and(|most| amount >= most) {
            Level::Full
        } else if self.soft.allows(amount) {
            Level::Free
        } else {
            Level::Warned
        }
    }

    /// Whether its limits are not those of all.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        !self.inherited
    }

    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.soft != Limit::Unlimited || self.hard != Limit::Unlimited
    }
}

/// Limits and what is used of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QuotaView {
    pub lines: Vec<QuotaLine>,
}

/// A tenant with its limits and usage of VMs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TenantQuotaView {
    pub tenant: TenantView,
    /// Of everything that VMs count.
    pub lines: Vec<QuotaLine>,
}

/// What the caller may have: within the tenant, and as one of its users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OwnQuotaView {
    pub tenant: Vec<QuotaLine>,
    pub user: Vec<QuotaLine>,
}

impl OwnQuotaView {
    /// Whose limits: `(of the tenant, line)`, the tenant's first.
    pub fn lines(&self) -> impl Iterator<Item = (Whose, &QuotaLine)> {
        let tenant = self.tenant.iter().map(|line| (Whose::Tenant, line));
        tenant.chain(self.user.iter().map(|line| (Whose::User, line)))
    }
}

/// Whose limits they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Tenant,
    User,
}

/// The sentence that refuses what does not fit; 0 for `more` where nobody knows yet.
#[must_use]
pub fn refusal(whose: &str, counted: &Counted, used: u64, more: u64, hard: u64) -> String {
    let show = |amount| counted.measure.show(amount);
    let needs_more = more > 0;
    let (used, more, hard) = (show(used), show(more), show(hard));
    if !needs_more {
        return format!(
            "the quota of {whose} for {counted} is {hard}: {used} in use, and nothing left"
        );
    }
    format!(
        "the quota of {whose} for {counted} is {hard}: {used} in use, and this needs {more} more"
    )
}

/// The sentence that tells of a soft limit that is passed.
#[must_use]
pub fn warning(whose: &str, counted: &Counted, used: u64, soft: u64) -> String {
    let show = |amount| counted.measure.show(amount);
    let (used, soft) = (show(used), show(soft));
    format!("The quota of {whose} for {counted} warns above {soft}: {used} in use")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(measure: Measure, soft: Limit, hard: Limit) -> QuotaLimit {
        QuotaLimit {
            measure,
            datastore: None,
            soft,
            hard,
        }
    }

    #[test]
    fn slugs_are_the_names_on_the_wire() {
        for measure in Measure::ALL {
            let on_wire = serde_json::to_value(measure).unwrap();
            assert_eq!(on_wire, measure.slug());
            assert_eq!(measure.slug().parse(), Ok(measure));
        }
    }

    #[test]
    fn a_limit_is_a_number_or_a_word() {
        let read = |text: &str| serde_json::from_str::<Limit>(text);
        assert_eq!(read("3").unwrap(), Limit::AtMost(3));
        assert_eq!(read("\"unlimited\"").unwrap(), Limit::Unlimited);
        for wrong in ["-1", "1.5", "null", "\"none\"", "\"3\""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for limit in [Limit::AtMost(0), Limit::Unlimited] {
            let written = serde_json::to_string(&limit).unwrap();
            assert_eq!(read(&written).unwrap(), limit);
        }
        assert!(Limit::AtMost(u64::MAX) < Limit::Unlimited);
    }

    #[test]
    fn every_fault_of_a_form_is_named() {
        let mut form = SetQuota {
            limits: vec![
                limit(Measure::Vms, Limit::AtMost(3), Limit::AtMost(5)),
                limit(Measure::Vms, Limit::AtMost(6), Limit::AtMost(5)),
                limit(Measure::Vcpus, Limit::Unlimited, Limit::AtMost(u64::MAX)),
            ],
        };
        form.limits[2].datastore = Some(DatastoreName::local());
        let error = form.check().unwrap_err();
        let fields: Vec<_> = error.fields.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "limits[1].soft",
                "limits[1].measure",
                "limits[2].datastore",
                "limits[2].hard"
            ]
        );
        form.limits.truncate(1);
        form.check().unwrap();
    }

    #[test]
    fn levels() {
        let line = QuotaLine {
            measure: Measure::Vms,
            datastore: None,
            used: 0,
            soft: Limit::AtMost(2),
            hard: Limit::AtMost(4),
            inherited: false,
        };
        let levels = [0, 2, 3, 4, 5].map(|amount| line.level(amount));
        assert_eq!(
            levels,
            [
                Level::Free,
                Level::Free,
                Level::Warned,
                Level::Full,
                Level::Full
            ]
        );
    }

    #[test]
    fn a_refusal_says_how_much_there_is() {
        let counted = Counted::from(Measure::RunningMemoryMib);
        assert_eq!(
            refusal("tenant `acme`", &counted, 1024, 512, 1024),
            "the quota of tenant `acme` for running memory is 1 GiB: 1 GiB in use, and this needs \
             512 MiB more"
        );
    }
}
