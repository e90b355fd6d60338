{% include "web/page/shared.js" %}

// A picture, of any size and from anywhere, becomes probabilities: decoded by the browser, laid on white, and given to
// the model as it is; resizing is the model's. Nothing is sent anywhere.
const LARGEST = 16e6; // pixels; what is larger is drawn smaller: some phones have no larger canvas
const about = JSON.parse($("about").textContent);
const inline = $("model.onnx") !== null; // everything is in this one file

async function unpacked(id) {
  const packed = Uint8Array.from(atob($(id).textContent), (letter) => letter.charCodeAt(0));
  $(id).remove();
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function load() {
  ort.env.wasm.numThreads = 1;
  if (!inline) {
    ort.env.wasm.wasmPaths = new URL("./", location.href).href;
    return ort.InferenceSession.create("model.onnx");
  }
  const code = new Blob([await unpacked("ort-wasm-simd-threaded.mjs")], { type: "text/javascript" });
  ort.env.wasm.wasmBinary = await unpacked("ort-wasm-simd-threaded.wasm");
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(code) };
  return ort.InferenceSession.create(await unpacked("model.onnx"));
}

function drawn(source, width, height, scale = 1) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

async function probabilities(canvas) {
  const { width, height } = canvas;
  const rgba = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  const image = new ort.Tensor("uint8", rgb, [1, height, width, 3]);
  return Array.from((await (await session).run({ image })).probabilities.data);
}

// The probabilities of a picture's file, for programs that drive this page too.
async function classify(blob) {
  const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  const scale = Math.min(1, Math.sqrt(LARGEST / (bitmap.width * bitmap.height)));
  const canvas = drawn(bitmap, bitmap.width, bitmap.height, scale);
  bitmap.close();
  return { canvas, values: await probabilities(canvas) };
}

function labels(ranked) {
  if (!about.multilabel) return ranked[0].label;
  const chosen = ranked.filter(({ code, value }) => value >= about.thresholds[code]);
  return chosen.map(({ label }) => label).join(", ") || "none of the labels";
}

function show(canvas, values, name) {
  const ranked = values.map((value, code) => ({ code, value, label: about.classes[code] }));
  ranked.sort((one, other) => other.value - one.value);
  const small = drawn(canvas, canvas.width, canvas.height, Math.min(1, 400 / Math.max(canvas.width, canvas.height)));
  small.setAttribute("role", "img");
  small.setAttribute("aria-label", name);
  const bars = ranked.slice(0, SHOWN).map(({ label, value }) => bar(label, value));
  const heading = element("h2", {}, labels(ranked));
  $("results").prepend(element("article", {}, small, heading, element("ul", {}, ...bars), element("p", {}, name)));
  $("clear").hidden = false;
  return `${name}: ${labels(ranked)}, ${percent(ranked[0].value)}`;
}

async function take(files) {
  for (const file of files) {
    say(`Looking at ${file.name} …`);
    try {
      const { canvas, values } = await classify(file);
      say(show(canvas, values, file.name));
    } catch (error) {
      say(`${file.name} can't be read as a picture. ${error.message}`);
    }
  }
}

// The camera

let stream = null;
let facing = "environment";

async function open() {
  close();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: facing } });
  } catch (error) {
    say(`The camera can't be used: ${error.message}`);
    return;
  }
  $("video").srcObject = stream;
  $("viewfinder").hidden = false;
  await $("video").play();
  $("take").focus();
}

function close() {
  if (stream) stream.getTracks().forEach((track) => track.stop());
  stream = null;
  $("viewfinder").hidden = true;
}

async function freeze() {
  const video = $("video");
  video.pause();
  const canvas = drawn(video, video.videoWidth, video.videoHeight);
  say(show(canvas, await probabilities(canvas), "from the camera"));
  if (stream) await video.play();
}

listen(take);
$("camera").addEventListener("click", open);
$("stop").addEventListener("click", () => {
  close();
  $("camera").focus();
});
$("take").addEventListener("click", freeze);
$("switch").addEventListener("click", () => {
  facing = facing === "environment" ? "user" : "environment";
  open();
});

$("camera").hidden = !navigator.mediaDevices;
if (!inline && "serviceWorker" in navigator) navigator.serviceWorker.register("sw.js");

const session = load();
session.then(
  () => say("Ready."),
  (error) => say(`The model can't be loaded: ${error.message}`),
);
