// The serial console: an xterm.js terminal on a WebSocket. The page's wasm
// gives it tickets and hears how the connection is.

import { Terminal } from "@xterm/xterm";
import { FitAddon } from "@xterm/addon-fit";

const encoder = new TextEncoder();
const theme = {
  background: "#14121f",
  foreground: "#e6e4f0",
  cursor: "#f2b84b",
  selectionBackground: "#4b4680",
};
let obeys = false;

// A strict Content-Security-Policy lets style elements in by their nonce, and
// no style attributes from markup; xterm.js knows of neither.
function obeyPolicy(nonce) {
  if (obeys) return;
  obeys = true;
  const create = document.createElement;
  document.createElement = function (name, options) {
    const element = create.call(this, name, options);
    if (name === "style") element.nonce = nonce;
    if (name === "span") element.setAttribute = setAttribute;
    return element;
  };
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("@xterm/xterm/css/xterm.css", import.meta.url);
  document.head.append(link);
}

function setAttribute(name, value) {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}

// `ticket()` resolves to { path, ticket }, or to null when there is nothing to
// connect to any more. `report` hears: connecting, open, lost, ended.
export function open(place, { label, nonce, ticket, report }) {
  obeyPolicy(nonce);
  const cursorBlink = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const { fontFamily } = getComputedStyle(place);
  const look = { cursorBlink, fontFamily, fontSize: 13, theme };
  const terminal = new Terminal({ ...look, screenReaderMode: true, scrollback: 5000 });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(place);
  terminal.textarea.setAttribute("aria-label", label);
  // Tab belongs to the machine; this is the way out for the keyboard.
  terminal.attachCustomKeyEventHandler(({ type, key, shiftKey }) => {
    if (type !== "keydown" || key !== "Escape" || !shiftKey) return true;
    document.getElementById("console-again")?.focus();
    return false;
  });
  const observer = new ResizeObserver(() => place.clientWidth && fit.fit());
  observer.observe(place);
  place.scrollIntoView({ block: "nearest" });

  let socket, timer, tries = 0, closed = false, asked = true;
  const send = (bytes) => socket?.readyState === WebSocket.OPEN && socket.send(bytes);
  terminal.onData((text) => send(encoder.encode(text)));
  terminal.onBinary((text) => send(Uint8Array.from(text, (c) => c.charCodeAt(0))));

  function hangUp() {
    const old = socket;
    socket = undefined;
    clearTimeout(timer);
    if (!old) return;
    old.onmessage = null;
    // The browser complains about a socket that is closed before it is open.
    if (old.readyState === WebSocket.CONNECTING) old.onopen = () => old.close();
    else old.close();
  }

  function retry() {
    if (closed) return;
    report("lost");
    timer = setTimeout(connect, Math.min(500 * 2 ** tries++, 10_000));
  }

  async function connect() {
    hangUp();
    report("connecting");
    const grant = await ticket().catch(() => undefined);
    if (closed || socket) return;
    if (!grant) return grant === null ? report("ended") : retry();
    const url = new URL(grant.path, location.href.replace(/^http/, "ws"));
    const mine = (socket = new WebSocket(url));
    mine.binaryType = "arraybuffer";
    mine.onopen = () => mine.send(JSON.stringify({ ticket: grant.ticket }));
    // The first message says that the machine's line is open.
    mine.onmessage = () => {
      tries = 0;
      mine.onmessage = ({ data }) => terminal.write(new Uint8Array(data));
      report("open");
      // Whoever did not ask for it just now may be busy elsewhere.
      if (asked) terminal.focus();
      asked = false;
    };
    mine.onclose = () => mine === socket && retry();
  }

  function reconnect() {
    tries = 0;
    connect();
  }

  connect();
  const ask = () => {
    asked = true;
    reconnect();
  };
  const paste = async () => terminal.paste(await navigator.clipboard.readText());
  const close = () => {
    closed = true;
    hangUp();
    observer.disconnect();
    terminal.dispose();
  };
  return { ask, reconnect, paste, close };
}
