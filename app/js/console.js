// The serial console: an xterm.js terminal on a WebSocket. The page's wasm
// gives it tickets and hears how the connection is.

import { Terminal } from "@xterm/xterm";
import { FitAddon } from "@xterm/addon-fit";

const RETRY_MS = [500, 10_000];
const encoder = new TextEncoder();
let styled = false;

// A strict Content-Security-Policy lets style elements in by their nonce, and
// no style attributes from markup; xterm.js knows of neither.
function obeyPolicy(nonce) {
  if (styled) return;
  styled = true;
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("@xterm/xterm/css/xterm.css", import.meta.url);
  document.head.append(link);
  const create = document.createElement;
  document.createElement = function (name, options) {
    const element = create.call(this, name, options);
    if (name === "style") element.nonce = nonce;
    if (name === "span") element.setAttribute = setAttribute;
    return element;
  };
}

function setAttribute(name, value) {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}

// `ticket()` resolves to { path, ticket }, or to null when there is nothing to
// connect to any more. `report` hears: connecting, open, lost, ended.
export function open(place, { label, nonce, ticket, report }) {
  obeyPolicy(nonce);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const terminal = new Terminal({
    cursorBlink: !still,
    fontFamily: getComputedStyle(place).fontFamily,
    fontSize: 13,
    screenReaderMode: true,
    scrollback: 5000,
    theme: { background: "#14121f", foreground: "#e6e4f0", cursor: "#f2b84b", selectionBackground: "#4b4680" },
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(place);
  terminal.textarea.setAttribute("aria-label", label);
  // Tab belongs to the machine; this is the way out for the keyboard.
  terminal.attachCustomKeyEventHandler((event) => {
    if (event.type !== "keydown" || event.key !== "Escape" || !event.shiftKey) return true;
    document.getElementById("console-again")?.focus();
    return false;
  });
  const observer = new ResizeObserver(() => place.clientWidth && fit.fit());
  observer.observe(place);

  let socket, timer, tries = 0, closed = false;
  const send = (bytes) => socket?.readyState === WebSocket.OPEN && socket.send(bytes);
  terminal.onData((text) => send(encoder.encode(text)));
  terminal.onBinary((text) => send(Uint8Array.from(text, (c) => c.charCodeAt(0))));

  function retry() {
    if (closed) return;
    report("lost");
    timer = setTimeout(connect, Math.min(RETRY_MS[0] * 2 ** tries++, RETRY_MS[1]));
  }

  async function connect() {
    clearTimeout(timer);
    report("connecting");
    let grant;
    try {
      grant = await ticket();
    } catch {
      return retry();
    }
    if (closed) return;
    if (!grant) return report("ended");
    const url = new URL(grant.path, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const mine = (socket = new WebSocket(url));
    mine.binaryType = "arraybuffer";
    mine.onopen = () => {
      mine.send(JSON.stringify({ ticket: grant.ticket }));
      report("open");
      terminal.focus();
    };
    mine.onmessage = ({ data }) => {
      tries = 0;
      terminal.write(typeof data === "string" ? data : new Uint8Array(data));
    };
    mine.onclose = () => mine === socket && retry();
  }

  connect();
  return {
    reconnect() {
      tries = 0;
      const old = socket;
      socket = undefined;
      old?.close();
      connect();
    },
    async paste() {
      terminal.paste(await navigator.clipboard.readText());
      terminal.focus();
    },
    close() {
      closed = true;
      clearTimeout(timer);
      observer.disconnect();
      socket?.close();
      terminal.dispose();
    },
  };
}
