// The service's page: signs in with a one-time link or a token, shows devices and jobs, submits new ones.
"use strict";

const PAGE = 24; // jobs that are shown at first, and more with each press of Show More
const EVERY = 1500; // milliseconds between two looks at the service
const $ = (id) => document.getElementById(id);
const pictures = new Map(); // sha256 -> address of the picture in this page
const cards = new Map(); // id of a job -> its element
let shown = PAGE;
let timer = 0;

class Problem extends Error {}

async function call(method, path, body, type) {
  const headers = { "X-Page-Key": localStorage.getItem("key") || "" };
  if (type) headers["Content-Type"] = type;
  const response = await fetch(path, { method, body, headers, cache: "no-store" });
  if (response.status === 401) {
    localStorage.removeItem("key");
    show("login");
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    const detail = problem.detail || `the service responds with status ${response.status}`;
    const remedy = response.status === 401 ? "" : problem.remedy; // which is for the add-on
    throw new Problem([detail.charAt(0).toUpperCase() + detail.slice(1), remedy].filter(Boolean).join(". "));
  }
  return response;
}

const json = async (path) => (await call("GET", path)).json();

function show(which) {
  $("login").hidden = which !== "login";
  $("studio").hidden = which !== "studio";
  if (which === "login") {
    clearTimeout(timer);
    $("devices").textContent = "";
  }
}

async function signIn(key) {
  const response = await call("POST", "/v1/session", JSON.stringify({ key }), "application/json");
  localStorage.setItem("key", (await response.json()).key);
}

// ------------------------------------------------------------------------------------------------ devices and jobs

async function refresh() {
  clearTimeout(timer);
  try {
    const [devices, active, newest] = await Promise.all([
      json("/v1/workers"), json("/v1/jobs?active=true"), json(`/v1/jobs?limit=${Math.min(shown, 200)}`),
    ]);
    show("studio");
    showDevices(devices.workers);
    showJobs(active.jobs, newest);
  } catch (error) {
    if (!$("login").hidden) return;
    $("devices").textContent = error instanceof Problem ? error.message : "The service does not respond.";
  }
  if (!document.hidden) timer = setTimeout(refresh, EVERY);
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className || "";
  made.textContent = text || "";
  return made;
}

function showDevices(workers) {
  $("devices").replaceChildren(...workers.flatMap((worker) => {
    const words = worker.device
      ? `${worker.device.device_name} (${worker.device.device})${worker.job ? ", working" : ", idle"}`
      : worker.message || "The worker is starting";
    return [element("span", worker.device ? "dot ready" : "dot"), words, " "];
  }));
}

function showJobs(active, newest) {
  const places = new Map(active.filter((job) => job.state === "queued").map((job, index) => [job.id, index + 1]));
  const running = active.length - places.size;
  $("queue").textContent = active.length ? `${running} running, ${places.size} waiting` : "";
  const present = new Set(newest.jobs.map((job) => job.id));
  for (const [id, card] of cards) if (!present.has(id)) { card.remove(); cards.delete(id); }
  newest.jobs.forEach((job, index) => {
    let card = cards.get(job.id);
    if (!card) cards.set(job.id, (card = element("li", "job card")));
    const version = `${job.revision} ${places.get(job.id) || ""}`;
    if (card.dataset.version !== version) fill(card, job, places.get(job.id));
    card.dataset.version = version;
    if ($("jobs").children[index] !== card) $("jobs").insertBefore(card, $("jobs").children[index] || null);
  });
  $("empty").hidden = newest.jobs.length > 0;
  $("more").hidden = newest.next === null || shown >= 200;
}

const size = (job) => `${job.request.parameters.width} x ${job.request.parameters.height}`;
const title = (job) => {
  const kind = job.request.kind.charAt(0).toUpperCase() + job.request.kind.slice(1);
  return job.request.parameters.width ? `${size(job)}, seed ${job.request.parameters.seed}` : kind;
};

function words(job, place) {
  if (job.state === "queued") return place ? `Waiting, number ${place} in line` : job.message;
  if (job.state === "succeeded") return `Done in ${job.result.seconds.toFixed(1)} s`;
  if (job.state === "failed") return job.problem.detail;
  if (job.state === "canceled") return "Canceled";
  const left = job.seconds_left === null ? "" : `, ${Math.ceil(job.seconds_left)} s left`;
  return `${job.message}${left}`;
}

function fill(card, job, place) {
  card.className = `job card ${job.state}`;
  const result = job.result && job.result.outputs.image;
  const sha = result || job.preview || job.request.inputs.swatch;
  const picture = element("button", "picture");
  picture.disabled = !result;
  picture.setAttribute("aria-label", result ? `Show the result, ${title(job)}` : title(job));
  picture.addEventListener("click", () => view(job));
  if (sha) {
    const image = new Image();
    image.alt = "";
    if (!result && !job.preview) image.className = "swatch";
    address(sha).then((url) => { image.src = url; }, () => { picture.textContent = "No picture"; });
    picture.append(image);
  }
  const text = element("div", "words");
  text.append(element("span", "name", title(job)));
  if (job.state === "running") {
    const bar = document.createElement("progress");
    bar.value = job.progress;
    bar.setAttribute("aria-label", "Progress");
    text.append(bar);
  }
  text.append(element("span", "state", [words(job, place), job.artist].filter(Boolean).join(" · ")));
  const buttons = element("div", "buttons");
  const ended = ["succeeded", "failed", "canceled"].includes(job.state);
  if (result) buttons.append(button("Show", () => view(job)));
  if (ended) buttons.append(button("Delete", () => change("DELETE", `/v1/jobs/${job.id}`)));
  else if (job.state !== "canceling") buttons.append(button("Cancel", () => change("POST", `/v1/jobs/${job.id}/cancel`)));
  text.append(buttons);
  card.replaceChildren(picture, text);
}

function button(text, action) {
  const made = element("button", "", text);
  made.type = "button";
  made.addEventListener("click", action);
  return made;
}

async function change(method, path) {
  await call(method, path).catch((error) => { $("form-error").textContent = error.message; });
  refresh();
}

async function address(sha) {
  if (!pictures.has(sha)) {
    pictures.set(sha, (async () => {
      const bytes = await (await call("GET", `/v1/blobs/${sha}`)).blob();
      return URL.createObjectURL(bytes);
    })());
    pictures.get(sha).catch(() => pictures.delete(sha));
    if (pictures.size > 400) { // long runs make thousands of previews
      const [oldest, url] = pictures.entries().next().value;
      pictures.delete(oldest);
      url.then(URL.revokeObjectURL, () => {});
    }
  }
  return pictures.get(sha);
}

// ------------------------------------------------------------------------------------------------ one result

async function view(job) {
  const url = await address(job.result.outputs.image);
  const { width, height } = job.request.parameters;
  $("viewer-title").textContent = title(job);
  $("viewer-notes").textContent = job.result.notes.join(". ");
  $("tiles").style.backgroundImage = `url("${url}")`;
  $("tiles").style.aspectRatio = `${width} / ${height}`;
  $("tiles").style.maxWidth = `calc(76vh * ${width / height})`;
  $("tiles").setAttribute("aria-label", `The result, ${title(job)}`);
  $("download").href = url;
  $("download").download = `texture-${size(job).replaceAll(" ", "")}-${job.request.parameters.seed}.png`;
  $("viewer").showModal();
  repeat();
}

function repeat() {
  $("tiles").style.backgroundSize = $("repeat").checked ? "50% 50%" : "100% 100%";
}

// ------------------------------------------------------------------------------------------------ a new texture

function choose(file) {
  const image = $("swatch-preview");
  if (image.src) URL.revokeObjectURL(image.src);
  image.hidden = !file;
  $("drop-text").textContent = file ? file.name : "Drop a photograph of a material here, or choose a file";
  if (file) image.src = URL.createObjectURL(file);
}

async function submit() {
  const file = $("swatch").files[0];
  if (!file) throw new Problem("Choose a picture of a material first.");
  const bytes = await file.arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const sha = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  await call("PUT", `/v1/blobs/${sha}`, bytes, "application/octet-stream");
  const parameters = {
    width: Number($("width").value), height: Number($("height").value), seed: Number($("seed").value),
    tile: $("tiling").value,
  };
  const body = JSON.stringify({ kind: "synthesize", parameters, inputs: { swatch: sha } });
  await call("PUT", `/v1/jobs/${crypto.randomUUID()}`, body, "application/json");
}

function handle(form, error, action) {
  $(form).addEventListener("submit", async (event) => {
    event.preventDefault();
    $(error).textContent = "";
    const pressed = $(form).querySelector("button.primary");
    pressed.disabled = true;
    try {
      await action();
      await refresh();
    } catch (problem) {
      $(error).textContent = problem.message;
    }
    pressed.disabled = false;
  });
}

// ------------------------------------------------------------------------------------------------ begin

handle("form", "form-error", submit);
handle("login-form", "login-error", async () => {
  await signIn($("token").value);
  $("token").value = "";
});
$("swatch").addEventListener("change", () => choose($("swatch").files[0]));
$("drop").addEventListener("dragover", () => $("drop").classList.add("over"));
for (const name of ["dragleave", "drop"]) $("drop").addEventListener(name, () => $("drop").classList.remove("over"));
$("more").addEventListener("click", () => { shown += PAGE; refresh(); });
$("close").addEventListener("click", () => $("viewer").close());
$("repeat").addEventListener("change", repeat);
document.addEventListener("visibilitychange", () => { if (!document.hidden && $("login").hidden) refresh(); });

(async () => {
  const key = location.hash.slice(1);
  if (key) {
    history.replaceState(null, "", "/");
    await signIn(key).catch((error) => { $("login-error").textContent = error.message; });
  }
  if (localStorage.getItem("key")) await refresh();
  else show("login");
})();
