// Entry of TensorBoard's Distillation tab: builds the report's page in the plugin's iframe and keeps it fresh.
const POLL_MS = 4000;
let sweep = new URLSearchParams(location.hash.slice(1)).get("sweep") || "";
let signature = null;

export async function render() {
  document.documentElement.lang = "en";
  follow(themeOfTensorBoard);
  try {
    await build();
  } catch (error) {
    say(String(error.message || error));
    return;
  }
  await refresh();
  setInterval(() => { if (document.body.clientWidth > 0 && !document.hidden) refresh(); }, POLL_MS);
}

async function build() {
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = "./report.css";
  document.head.append(style);
  const [listing, body] = await Promise.all([ask("./sweeps"), fetch("./body.html").then((answer) => answer.text())]);
  document.body.insertAdjacentHTML("beforeend", body);
  const box = document.createElement("label");
  box.id = "kd-sweep-box";
  const select = document.createElement("select");
  select.id = "kd-sweep";
  select.onchange = () => { sweep = select.value; signature = null; refresh(); };
  box.append("sweep ", select);
  document.querySelector("#kd .controls").prepend(box);
  list(listing.sweeps);
  for (const source of ["./plotly.js?v=" + listing.plotly, "./charts.js", "./table.js", "./report.js"]) await script(source);
}

function script(source) {
  return new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.src = source;
    element.onload = resolve;
    element.onerror = () => reject(new Error("could not load " + source));
    document.head.append(element);
  });
}

function list(sweeps) {
  const select = document.getElementById("kd-sweep");
  if (!sweeps.includes(sweep)) sweep = sweeps[0] || "";
  const known = [...select.options].map((option) => option.value);
  if (JSON.stringify([...known].sort()) !== JSON.stringify([...sweeps].sort())) {
    select.replaceChildren(...sweeps.map((name) => new Option(name === "." ? "this directory" : name, name)));
  }
  select.value = sweep;
  document.getElementById("kd-sweep-box").hidden = sweeps.length < 2;
}

async function ask(address) {
  const answer = await fetch(address, { cache: "no-store" });
  const content = await answer.json();
  if (!answer.ok || content.error) throw new Error(content.error || answer.statusText);
  return content;
}

let busy = false;
async function refresh() {
  if (busy) return;
  busy = true;
  try {
    list((await ask("./sweeps")).sweeps);
    const query = "?sweep=" + encodeURIComponent(sweep);
    const latest = (await ask("./signature" + query)).signature;
    if (latest !== signature) {
      const content = await ask("./content" + query);
      const place = document.scrollingElement.scrollTop;
      window.KD.show(content);
      document.scrollingElement.scrollTop = place;
      signature = content.signature;
    }
    say("");
  } catch (error) {
    say(String(error.message || error));
  } finally {
    busy = false;
  }
}

// One line on top; the last good page stays below it.
function say(text) {
  let line = document.getElementById("kd-message");
  if (!line) {
    line = document.createElement("p");
    line.id = "kd-message";
    line.setAttribute("role", "status");
    line.style.cssText = "margin:0;padding:12px 22px;font:14px system-ui,sans-serif;color:#b3472f";
    document.body.prepend(line);
  }
  line.textContent = text;
  line.hidden = !text;
  const page = document.getElementById("kd");
  if (page) page.hidden = Boolean(text) && !window.KD?.data;
}

// TensorBoard's own dark mode, where its page lets itself be read; otherwise the system's.
function themeOfTensorBoard() {
  try {
    return window.parent.document.body.classList.contains("dark-mode") ? "dark" : "light";
  } catch {
    return null;
  }
}

function follow(theme) {
  const apply = () => {
    const name = theme();
    if (!name) return;
    document.documentElement.dataset.theme = name;
    if (window.KD?.data) window.KD.render();
  };
  apply();
  try {
    new MutationObserver(apply).observe(window.parent.document.body, { attributes: true, attributeFilter: ["class"] });
  } catch {
    // Another origin: the system's theme stays.
  }
}
