//! Files from NFS servers, read over version 3 by this process itself: nothing
//! is mounted, and no privilege is needed.
//!
//! We come as `nobody`: what is not readable by everyone is not read, whatever
//! user this process runs as. The server's ports are asked of its portmapper,
//! unless the URL names both: `nfs://server/path?nfsport=2049&mountport=20048`.

use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use futures::stream::try_unfold;
use nfs3_client::nfs3_types::mount::{self, MOUNT_PROGRAM, dirpath, mountstat3};
use nfs3_client::nfs3_types::nfs3::{
    self, GETATTR3args, LOOKUP3args, Nfs3Result, READ3args, diropargs3, fattr3, filename3, ftype3,
    nfs_fh3, nfsstat3,
};
use nfs3_client::nfs3_types::portmap::{IPPROTO_TCP, PMAP_PORT};
use nfs3_client::nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_client::nfs3_types::xdr_codec::{Error as XdrError, Opaque, Result as XdrResult, Unpack};
use nfs3_client::rpc::RpcClient;
use nfs3_client::{Nfs3Client, PortmapError, PortmapperClient, RpcError};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_util::io::StreamReader;

use self::wire::Wire;
use crate::limits::{
    CONNECT_TIMEOUT, MAX_NFS_DEPTH, MAX_NFS_FLAVORS, NFS_READ_BYTES, SILENCE_TIMEOUT,
};
use crate::{FetchError, Mark, Opened, Reach, Source, begin};

mod wire;

/// `nobody`, on every system.
const NOBODY: u32 = 65534;
/// Where many servers expect their clients to come from; tried where this
/// process may, and not insisted on.
const PRIVILEGED_PORTS: std::ops::Range<u16> = 700..1024;

type Client = Nfs3Client<Wire>;

pub async fn open(
    source: &Source,
    mark: Option<&Mark>,
    reach: &Reach,
) -> Result<Opened, FetchError> {
    let path = source.path();
    if path.len() > MAX_NFS_DEPTH {
        let why = format!("it is more than {MAX_NFS_DEPTH} directories deep");
        return Err(FetchError::Broken(why));
    }
    let addresses = reach.resolve(&source.host(), 0).await?;
    let mut last = FetchError::silent();
    for address in addresses {
        match find(source, &path, address).await {
            Ok((client, file)) => return read(client, file, mark).await,
            Err(error) if error.is_passing() => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Mounts what can be mounted of the file's directories and walks the rest.
async fn find(
    source: &Source,
    path: &[String],
    server: SocketAddr,
) -> Result<(Client, nfs_fh3), FetchError> {
    let (nfs_port, mount_port) = ports(source, server).await?;
    let mut mounts = RpcClient::new_with_auth(
        connect(server, mount_port).await?,
        nobody(),
        opaque_auth::default(),
    );
    let directories = path.len().saturating_sub(1);
    let mut refusal = mountstat3::MNT3ERR_NOENT;
    for depth in (0..=directories).rev() {
        let (shared, rest) = path.split_at(depth);
        let shared = format!("/{}", shared.join("/"));
        let handle = match mount(&mut mounts, &shared).await? {
            MountReply::Root(handle) => handle,
            MountReply::Refused(why) => {
                // That it may not be had says more than that it is not there.
                if !matches!(why, mountstat3::MNT3ERR_NOENT) {
                    refusal = why;
                }
                continue;
            }
        };
        let io = connect(server, nfs_port).await?;
        let mut client = Client::new_with_auth(io, nobody(), opaque_auth::default());
        let file = walk(&mut client, handle, rest).await?;
        return Ok((client, file));
    }
    Err(match refusal {
        mountstat3::MNT3ERR_NOENT => FetchError::NotFound,
        why => FetchError::Denied(format!(
            "its server shares no directory above it with us ({why})"
        )),
    })
}

/// The ports of the NFS and the mount service.
async fn ports(source: &Source, server: SocketAddr) -> Result<(u16, u16), FetchError> {
    let named = |name: &str| {
        let mut pairs = source.url().query_pairs();
        let found = pairs.find(|(key, _)| key == name);
        found.and_then(|(_, port)| port.parse::<u16>().ok())
    };
    let nfs = named("nfsport").or_else(|| source.url().port());
    let mount = named("mountport");
    if let (Some(nfs), Some(mount)) = (nfs, mount) {
        return Ok((nfs, mount));
    }
    let mut portmapper = PortmapperClient::new(connect(server, PMAP_PORT).await?);
    let mut ask = async |program, version| {
        let asked = timeout(
            SILENCE_TIMEOUT,
            portmapper.getport(program, version, IPPROTO_TCP),
        );
        let port = asked.await.map_err(|_| FetchError::silent())?;
        port.map_err(|error| match error {
            PortmapError::Rpc(error) => broken(&error),
            other => FetchError::Broken(format!("its server offers no NFS version 3 ({other})")),
        })
    };
    let nfs = match nfs {
        Some(port) => port,
        None => ask(nfs3::PROGRAM, nfs3::VERSION).await?,
    };
    let mount = match mount {
        Some(port) => port,
        None => ask(mount::PROGRAM, mount::VERSION).await?,
    };
    Ok((nfs, mount))
}

async fn connect(server: SocketAddr, port: u16) -> Result<Wire, FetchError> {
    let address = SocketAddr::new(server.ip(), port);
    let away = |error: io::Error| FetchError::Away(error.to_string());
    let socket = from_privileged_port(address).map_err(away)?;
    let connected = timeout(CONNECT_TIMEOUT, socket.connect(address)).await;
    let stream = connected.map_err(|_| FetchError::silent())?.map_err(away)?;
    stream.set_nodelay(true).map_err(away)?;
    Ok(Wire::new(stream))
}

/// A socket on a free port of those, or on any where this process may not.
fn from_privileged_port(address: SocketAddr) -> io::Result<TcpSocket> {
    let any = |port: u16| match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    };
    let fresh = || match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    for port in PRIVILEGED_PORTS {
        let socket = fresh()?;
        match socket.bind(any(port)) {
            Ok(()) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(_) => break,
        }
    }
    fresh()
}

fn nobody() -> opaque_auth<'static> {
    opaque_auth::auth_unix(&auth_unix {
        stamp: 0,
        machinename: Opaque::borrowed(b"vimana"),
        uid: NOBODY,
        gid: NOBODY,
        gids: Vec::new(),
    })
}

/// The answer to MNT. Ours because the library's takes as much memory as the
/// server says, before the server has sent anything.
enum MountReply {
    Root(nfs_fh3),
    Refused(mountstat3),
}

impl Unpack for MountReply {
    fn unpack(input: &mut impl Read) -> XdrResult<(Self, usize)> {
        let (status, mut used) = mountstat3::unpack(input)?;
        if !matches!(status, mountstat3::MNT3_OK) {
            return Ok((Self::Refused(status), used));
        }
        let (handle, bytes) = nfs_fh3::unpack(input)?;
        used = used.saturating_add(bytes);
        let (flavors, bytes) = u32::unpack(input)?;
        used = used.saturating_add(bytes);
        if flavors > MAX_NFS_FLAVORS {
            return Err(XdrError::InvalidEnumValue(flavors));
        }
        for _ in 0..flavors {
            let (_, bytes) = u32::unpack(input)?;
            used = used.saturating_add(bytes);
        }
        Ok((Self::Root(handle), used))
    }
}

async fn mount(mounts: &mut RpcClient<Wire>, shared: &str) -> Result<MountReply, FetchError> {
    let shared = dirpath(Opaque::borrowed(shared.as_bytes()));
    let procedure = MOUNT_PROGRAM::MOUNTPROC3_MNT as u32;
    let call =
        mounts.call::<dirpath<'_>, MountReply>(mount::PROGRAM, mount::VERSION, procedure, &shared);
    in_time(call).await
}

async fn walk(client: &mut Client, root: nfs_fh3, rest: &[String]) -> Result<nfs_fh3, FetchError> {
    let mut at = root;
    for name in rest {
        let what = diropargs3 {
            dir: at,
            name: filename3(Opaque::borrowed(name.as_bytes())),
        };
        match in_time(client.lookup(&LOOKUP3args { what })).await? {
            Nfs3Result::Ok(found) => at = found.object,
            Nfs3Result::Err((status, _)) => return Err(failure(status)),
        }
    }
    Ok(at)
}

async fn attributes(client: &mut Client, file: &nfs_fh3) -> Result<fattr3, FetchError> {
    let object = file.clone();
    match in_time(client.getattr(&GETATTR3args { object })).await? {
        Nfs3Result::Ok(found) => Ok(found.obj_attributes),
        Nfs3Result::Err((status, _)) => Err(failure(status)),
    }
}

async fn read(
    mut client: Client,
    file: nfs_fh3,
    mark: Option<&Mark>,
) -> Result<Opened, FetchError> {
    let is = attributes(&mut client, &file).await?;
    if is.type_ != ftype3::NF3REG {
        return Err(FetchError::Broken("it is no regular file".to_owned()));
    }
    let changed = (is.mtime.seconds, is.mtime.nseconds);
    let version = format!("{}.{} {} {}", changed.0, changed.1, is.size, is.fileid);
    let offset = begin(mark, Some(&version), Some(is.size));
    let pieces = try_unfold((client, file, offset), move |(client, file, at)| {
        next(client, file, at, is.size)
    });
    Ok(Opened {
        offset,
        total: Some(is.size),
        version: Some(version),
        body: Box::pin(StreamReader::new(Box::pin(pieces))),
    })
}

type Place = (Client, nfs_fh3, u64);

async fn next(
    mut client: Client,
    file: nfs_fh3,
    at: u64,
    total: u64,
) -> io::Result<Option<(Bytes, Place)>> {
    if at >= total {
        return Ok(None);
    }
    let wanted = READ3args {
        file: file.clone(),
        offset: at,
        count: NFS_READ_BYTES,
    };
    let read = in_time(client.read(&wanted)).await;
    let read = match read.map_err(io::Error::other)? {
        Nfs3Result::Ok(read) => read,
        Nfs3Result::Err((status, _)) => return Err(io::Error::other(failure(status))),
    };
    let piece = Bytes::from(read.data.into_owned());
    if piece.is_empty() {
        let cut = "the file is shorter than its server said";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cut));
    }
    let further = u64::try_from(piece.len()).unwrap_or(u64::MAX);
    Ok(Some((piece, (client, file, at.saturating_add(further)))))
}

async fn in_time<T>(call: impl Future<Output = Result<T, RpcError>>) -> Result<T, FetchError> {
    let answered = timeout(SILENCE_TIMEOUT, call).await;
    answered
        .map_err(|_| FetchError::silent())?
        .map_err(|error| broken(&error))
}

fn broken(error: &RpcError) -> FetchError {
    match error {
        RpcError::Io(error) => FetchError::Away(error.to_string()),
        other => FetchError::Broken(format!("its server's answer makes no sense ({other})")),
    }
}

fn failure(status: nfsstat3) -> FetchError {
    match status {
        nfsstat3::NFS3ERR_NOENT | nfsstat3::NFS3ERR_NOTDIR | nfsstat3::NFS3ERR_STALE => {
            FetchError::NotFound
        }
        nfsstat3::NFS3ERR_PERM | nfsstat3::NFS3ERR_ACCES => {
            FetchError::Denied("not everyone may read it, and we are nobody there".to_owned())
        }
        nfsstat3::NFS3ERR_IO | nfsstat3::NFS3ERR_JUKEBOX | nfsstat3::NFS3ERR_SERVERFAULT => {
            FetchError::Away(format!("its server answers {status}"))
        }
        other => FetchError::Broken(format!("its server answers {other}")),
    }
}
