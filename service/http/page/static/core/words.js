// Errors as sentences: what happened comes from the service, what to do is said here.

const ADVICE = {
  unreachable: "Check that the service runs and that this computer reaches it; the page keeps trying.",
  foreign_answer: "A proxy in front of the service may be in the way; tell its operator.",
  validation_error: "Correct the marked fields, then generate again.",
  sampler_unsuitable: "Choose another sampler or another number of steps.",
  adapter_unsuitable: "Remove that LoRA, or choose a model that it fits.",
  model_not_found: "Choose a model from the list.",
  unauthorized: "Enter a valid key.",
  too_many_failures: "Wait, then enter the right key.",
  cross_origin: "Open this page at the address of the service itself.",
  forbidden: "Open this page under a name that the service knows, such as localhost.",
  rate_limited: "Wait a moment, then try again.",
  quota_exceeded: "Wait until the quota is renewed, or ask the operator for a larger one.",
  queue_full: "The queue is full: wait a moment, then try again.",
  timeout: "Use fewer steps or a smaller image, or try again when less is waiting.",
  out_of_memory: "Use a smaller size or fewer images.",
  model_unavailable: "Wait until the model is loaded; the status at the top says when.",
  engine_unavailable: "Wait until the engine is back; the status at the top says when.",
  cluster_unreachable: "No engine can be reached: tell the operator, and try again later.",
  engine_crashed: "Try again; if it happens again, use other settings and tell the operator.",
  generation_failed: "Try again; if it happens again, tell the operator the request id.",
  shutting_down: "The service is ending; try again when it is back.",
  storage_full: "The operator has to make room on the disk.",
  job_expired: "Use its settings and generate it again.",
  too_many_streams: "Close other windows of this page.",
  input_lost: "Use its settings, then choose the image again.",
  lost: "Use its settings and generate it again.",
};

export const adviceFor = (error) =>
  ADVICE[error.code] ?? "Try again; if it happens again, tell the operator.";

export function seconds(value) {
  if (value < 1) return "less than a second";
  if (value < 90) return plural(Math.round(value), "second");
  if (value < 5400) return plural(Math.round(value / 60), "minute");
  return plural(Math.round(value / 3600), "hour");
}

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// A short line on how far a job is.
export function progressOf(job) {
  if (job.state === "sending") return "Sending";
  if (job.state === "held") return "Waiting in this page";
  if (job.state === "queued") {
    const place = job.position ? `Waiting, place ${job.position}` : "Waiting";
    return job.startSeconds ? `${place} · starts in about ${seconds(job.startSeconds)}` : place;
  }
  if (!job.step) return "Starting";
  const left = job.eta ? ` · about ${seconds(job.eta)} left` : "";
  return `Step ${job.step} of ${job.steps}${left}`;
}
