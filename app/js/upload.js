// Sends a file to the server part by part, and goes on where it was after
// whatever breaks it off.

const PART_BYTES = 4 << 20;
const PAUSES_MS = [500, 1500, 4000, 10_000];

// Leaving the page would break it off: the browser asks first.
const hold = (event) => event.preventDefault();
let going = 0;
let all = new AbortController();

// Ends all of them: whoever comes next is somebody else.
export function stop() {
  all.abort();
  all = new AbortController();
}

// `report` hears how it goes: sending, waiting; and how it ended: sent, other
// (another file than was begun with), unreadable, stopped, or refused with the
// status.
export async function send(path, file, report) {
  if (going++ === 0) addEventListener("beforeunload", hold);
  try {
    report(...(await run(path, file, report, all.signal)));
  } finally {
    if (--going === 0) removeEventListener("beforeunload", hold);
  }
}

async function run(path, file, report, signal) {
  let at, tries = 0;
  for (;;) {
    if (signal.aborted) return ["stopped", 0];
    report("sending", 0);
    const answer = at === undefined ? await ask(path, signal) : await put(path, file, at, signal);
    if (answer === "unreadable") return [answer, 0];
    const { status = 503, headers } = answer ?? {};
    if (status === 204) {
      if (headers.get("upload-length") !== String(file.size)) return ["other", 0];
      tries = at === undefined ? tries : 0;
      at = Number(headers.get("upload-offset"));
      if (at === file.size) return ["sent", 0];
      continue;
    }
    // Where it goes on, the server knows; it refuses to say so when it is over.
    const passes = status >= 500 || status === 429 || (status < 500 && at !== undefined);
    if (!passes || status === 401 || status === 403) return ["refused", status];
    at = undefined;
    report("waiting", 0);
    await new Promise((done) => setTimeout(done, PAUSES_MS[Math.min(tries++, PAUSES_MS.length - 1)]));
  }
}

// Nothing where nobody answers.
const reach = (path, options) => fetch(path, options).catch(() => undefined);

const ask = (path, signal) => reach(path, { method: "HEAD", signal });

async function put(path, file, at, signal) {
  const body = await file.slice(at, at + PART_BYTES).arrayBuffer().catch(() => undefined);
  if (!body) return "unreadable";
  const headers = { "upload-offset": at, "content-type": "application/offset+octet-stream" };
  return reach(path, { method: "PATCH", headers, body, signal });
}
