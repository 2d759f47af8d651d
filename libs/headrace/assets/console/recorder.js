// A clip from the microphone as a WAV file: 16 kHz, one channel, 16 bit, which every speech model hears.

const RATE = 16000;
const LONGEST_MS = 30000;

export async function record(onEnd) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const recorder = new MediaRecorder(stream);
  const parts = [];
  recorder.addEventListener("dataavailable", (event) => event.data.size && parts.push(event.data));
  recorder.addEventListener("stop", async () => {
    for (const track of stream.getTracks()) track.stop();
    try {
      onEnd(await wav(new Blob(parts, { type: recorder.mimeType })), null);
    } catch (error) {
      onEnd(null, error);
    }
  });
  recorder.start(250);
  const timer = setTimeout(() => recorder.state === "recording" && recorder.stop(), LONGEST_MS);
  return () => {
    clearTimeout(timer);
    if (recorder.state === "recording") recorder.stop();
  };
}

async function wav(blob) {
  const context = new AudioContext();
  try {
    const heard = await context.decodeAudioData(await blob.arrayBuffer());
    const offline = new OfflineAudioContext(1, Math.max(1, Math.ceil(heard.duration * RATE)), RATE);
    const source = offline.createBufferSource();
    source.buffer = heard;
    source.connect(offline.destination);
    source.start();
    const made = await offline.startRendering();
    return new File([pack(made.getChannelData(0))], "clip.wav", { type: "audio/wav" });
  } finally {
    context.close();
  }
}

function pack(samples) {
  const view = new DataView(new ArrayBuffer(44 + samples.length * 2));
  const text = (at, word) => [...word].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + samples.length * 2, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // whole numbers
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, RATE, true);
  view.setUint32(28, RATE * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, samples.length * 2, true);
  samples.forEach((sample, i) => view.setInt16(44 + i * 2, Math.max(-1, Math.min(1, sample)) * 32767, true));
  return view.buffer;
}
