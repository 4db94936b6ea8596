// Runs @huggingface/inference or openai on recorded answers: a job on stdin, results on stdout.
//
// The job is one JSON object (see ask.py), each result one line of JSON: {version} first, one with `n` and `method`
// for each call, {n} when a question is finished, {done} at the end, or {fault}. Connections to anything but the
// replayer are refused below every library, and reported.
import { File as NodeFile } from "node:buffer";
import dgram from "node:dgram";
import dns from "node:dns";
import { readFileSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const HOST = "127.0.0.1";
const PROVIDER = "roadworthy";
const SAID_CHARS = 600;
const ERROR_CHARS = 1500;
/** Items of a stream shown; all of them are read. */
const SAMPLES = 3;
/** Providers whose helpers speak OpenAI's routes; the first that has a task lends the helper's checks for it. */
const OPENAI_LIKE = ["deepinfra", "together", "scaleway", "nscale"];

const blocked = [];
/** Whether the replayer was reached since this was last set; it keeps no connection open. */
let sent = false;

class BlockedError extends Error {
	constructor(what) {
		super(`blocked ${what}: only the replayer may be reached`);
		this.name = "BlockedError";
		blocked.push(what);
	}
}

/** Refuse every connection, look-up and datagram but connections to the replayer's address. */
function shutNetwork(port) {
	const connect = net.Socket.prototype.connect;
	net.Socket.prototype.connect = function (...args) {
		const given = Array.isArray(args[0]) ? args[0][0] : args[0];
		const to = typeof given === "object" && given !== null ? given : { port: given, host: args[1] };
		if (to.path !== undefined && to.path !== null && to.port === undefined) {
			throw new BlockedError(`a connection to ${to.path}`);
		}
		if (to.host !== HOST || Number(to.port) !== port) {
			throw new BlockedError(`a connection to ${to.host ?? "localhost"}:${to.port}`);
		}
		sent = true;
		return connect.apply(this, args);
	};
	const fetch = globalThis.fetch;
	globalThis.fetch = async (input, init) => {
		const url = new URL(input instanceof Request ? input.url : input);
		if (!["data:", "blob:"].includes(url.protocol) && (url.hostname !== HOST || Number(url.port) !== port)) {
			throw new BlockedError(`a connection to ${url.origin}`);
		}
		return fetch(input, init);
	};
	for (const owner of [dns, dns.promises]) {
		for (const name of Object.keys(owner)) {
			if (/^(lookup|resolve|reverse)/.test(name) && typeof owner[name] === "function") {
				const look = owner[name];
				owner[name] = (host, ...rest) => {
					if (host !== HOST) {
						throw new BlockedError(`a look-up of ${host}`);
					}
					return look(host, ...rest);
				};
			}
		}
	}
	for (const name of ["send", "connect"]) {
		dgram.Socket.prototype[name] = () => {
			throw new BlockedError("a datagram");
		};
	}
}

/** A line at once: the process may be ended at any moment. */
function tell(line) {
	let rest = Buffer.from(JSON.stringify(line) + "\n");
	while (rest.length > 0) {
		try {
			rest = rest.subarray(writeSync(1, rest));
		} catch (error) {
			if (error.code !== "EAGAIN") {
				throw error;
			}
		}
	}
}

/**
 * What a call gave: `said`, `error` where it threw, and whether the answer was `judged` by it. It was not where the
 * call threw before it sent anything, or came to no end: a slow machine is no fault of the answer.
 */
async function outcome(call, timeoutMs, isApiError) {
	let said = "";
	let error = null;
	let timer;
	const end = new Error(`the client came to no end within ${timeoutMs / 1000} s`);
	end.name = "Timeout";
	let late = false;
	try {
		const tooLate = new Promise((_, reject) => {
			timer = setTimeout(() => reject(end), timeoutMs);
		});
		said = excerpt(await Promise.race([call(), tooLate]));
	} catch (thrown) {
		late = thrown === end;
		error = {
			type: thrown?.name && thrown.name !== "Error" ? String(thrown.name) : (thrown?.constructor?.name ?? "Error"),
			message: String(thrown?.message ?? thrown).slice(0, ERROR_CHARS),
			api: isApiError(thrown),
		};
	} finally {
		clearTimeout(timer);
	}
	if (blocked.length > 0) {
		error = { type: "BlockedError", message: `blocked ${blocked[0]}`, api: false };
	}
	return { said, error, judged: (sent && !late) || blocked.length > 0 };
}

/** What a call returned, as short JSON. */
function excerpt(value) {
	return (JSON.stringify(plain(value, 10)) ?? "null").slice(0, SAID_CHARS);
}

/** A value as JSON, cut to few items and levels. */
function plain(value, depth) {
	if (typeof value === "string") {
		return value.slice(0, SAID_CHARS);
	}
	if (typeof value !== "object" || value === null) {
		return value;
	}
	if (value instanceof Blob) {
		return `Blob of ${value.size} bytes, ${value.type || "no type"}`;
	}
	if (value instanceof ArrayBuffer) {
		return `${value.byteLength} bytes`;
	}
	if (depth === 0) {
		return "…";
	}
	if (Array.isArray(value)) {
		return value.slice(0, 5).map((item) => plain(item, depth - 1));
	}
	const kept = Object.entries(value).filter(([, item]) => item !== null && typeof item !== "function");
	return Object.fromEntries(kept.slice(0, 20).map(([key, item]) => [key, plain(item, depth - 1)]));
}

/** Read a stream to its end, use each item as a caller would, and keep the first few. */
async function readAll(stream, use = () => {}) {
	const kept = [];
	for await (const item of stream) {
		use(item);
		if (kept.length < SAMPLES) {
			kept.push(item);
		}
	}
	return kept;
}

/** `value`, after it was used as a caller would. */
function used(value, use) {
	use(value);
	return value;
}

function expect(holds, message) {
	if (!holds) {
		throw new TypeError(`what the client returned cannot be used: ${message}`);
	}
}

/** What every caller reads of a chunk of a chat stream, of a completion, and so on. */
const deltaOf = (chunk) => chunk.choices.forEach((choice) => choice.delta.content);
const messageOf = (completion) => completion.choices[0].message.content;
const textsOf = (chunk) => chunk.choices.forEach((choice) => choice.text);
const textOf = (completion) => expect(typeof completion.choices[0].text === "string", "choices[0].text is no string");
const wordsOf = (answer) => expect(typeof (answer.text ?? answer) === "string", "text is no string");
const outputOf = (response) => {
	expect(Array.isArray(response.output), "output is no array");
	expect(typeof response.output_text === "string", "output_text is no string");
};
const imageOf = (answer) =>
	expect(typeof (answer.data[0].b64_json ?? answer.data[0].url) === "string", "data[0] has neither b64_json nor url");
const vectorsOf = (answer) =>
	expect(
		answer.data.length > 0 && answer.data.every((item) => Array.isArray(item.embedding)),
		"data holds no embedding that is an array",
	);

const bytes = (base64, type) => new Blob([Buffer.from(base64, "base64")], { type });
const image = (question) => bytes(question.inputs, "image/png");
const audio = (question) => bytes(question.inputs, "audio/wav");
const aboutImage = ({ inputs }) => ({ question: inputs.question, image: bytes(inputs.image, "image/png") });
const asIs = (question) => question.inputs;
const withLabels = (question) => ({ parameters: { candidate_labels: question.labels } });

/** By task: the method, its inputs, and its other arguments. */
const TASKS = {
	"audio-classification": ["audioClassification", audio],
	"audio-to-audio": ["audioToAudio", audio],
	"automatic-speech-recognition": ["automaticSpeechRecognition", audio],
	"document-question-answering": ["documentQuestionAnswering", aboutImage],
	"feature-extraction": ["featureExtraction", asIs],
	"fill-mask": ["fillMask", asIs],
	"image-classification": ["imageClassification", image],
	"image-segmentation": ["imageSegmentation", image],
	"image-to-image": ["imageToImage", image],
	"image-to-text": ["imageToText", image],
	"object-detection": ["objectDetection", image],
	"question-answering": ["questionAnswering", asIs],
	"sentence-similarity": ["sentenceSimilarity", asIs],
	summarization: ["summarization", asIs],
	"table-question-answering": ["tableQuestionAnswering", asIs],
	"tabular-classification": ["tabularClassification", (question) => ({ data: question.inputs })],
	"tabular-regression": ["tabularRegression", (question) => ({ data: question.inputs })],
	"text-classification": ["textClassification", asIs],
	"text-generation": ["textGeneration", asIs],
	"text-to-audio": ["textToAudio", asIs],
	"text-to-image": ["textToImage", asIs],
	"text-to-speech": ["textToSpeech", asIs],
	"token-classification": ["tokenClassification", asIs],
	translation: ["translation", asIs],
	"visual-question-answering": ["visualQuestionAnswering", aboutImage],
	"zero-shot-classification": ["zeroShotClassification", asIs, withLabels],
	"zero-shot-image-classification": ["zeroShotImageClassification", image, withLabels],
};

/** @huggingface/inference: as a provider of its own, or with the URL of a task. */
class HuggingFace {
	constructor(library, job) {
		this.library = library;
		this.job = job;
	}

	isApiError(error) {
		return error?.name === "ProviderApiError";
	}

	*calls(question) {
		const { task, api } = question;
		const found = task === "chat-completion" ? ["chatCompletion"] : TASKS[task];
		if (found === undefined || !["openai", "serverless"].includes(api)) {
			return;
		}
		const [method, inputs, others] = found;
		const where = {};
		if (api === "openai") {
			if (!this.register(task === "chat-completion" ? "conversational" : task, question.url)) {
				return;
			}
			Object.assign(where, { provider: PROVIDER, model: `${PROVIDER}/${question.model}` });
		}
		const client = new this.library.InferenceClient(
			this.job.key,
			// 503 is retried for ever otherwise.
			{ retry_on_error: false, ...(api === "serverless" ? { endpointUrl: question.url } : {}) },
		);
		if (typeof client[method] !== "function") {
			return;
		}
		if (task === "chat-completion") {
			const given = { ...where, messages: question.messages };
			for (const name of ["tools", "response_format"]) {
				if (question[name]) {
					given[name] = question[name];
				}
			}
			if (question.stream) {
				yield ["chatCompletionStream", () => readAll(client.chatCompletionStream(given), deltaOf)];
			} else {
				yield [method, async () => used(await client.chatCompletion(given), messageOf)];
			}
			return;
		}
		const given = { ...where, inputs: inputs(question), ...(others ? others(question) : {}) };
		if (task === "text-generation" && question.stream) {
			yield ["textGenerationStream", () => readAll(client.textGenerationStream(given))];
		} else {
			yield [method, () => client[method](given)];
		}
	}

	/** Register a provider of our own for this task; false where no helper in the package speaks OpenAI's route. */
	register(task, url) {
		const { PROVIDERS } = this.library;
		let helper;
		if (task === "conversational") {
			// The base class is not exported; every plain helper derives from it directly.
			const Base = Object.getPrototypeOf(PROVIDERS.groq.conversational.constructor);
			helper = new Base(PROVIDER, url, true);
		} else {
			const lender = OPENAI_LIKE.find((name) => PROVIDERS[name]?.[task] !== undefined);
			if (lender === undefined) {
				return false;
			}
			helper = Object.create(PROVIDERS[lender][task]);
			Object.assign(helper, { provider: PROVIDER, baseUrl: url, clientSideRoutingOnly: true });
		}
		PROVIDERS[PROVIDER] = { [task]: helper };
		return true;
	}
}

/** The openai package, with its base URL at the replayer and retries off. */
class OpenAI {
	constructor(library, job) {
		this.library = library;
		this.job = job;
	}

	isApiError(error) {
		return error instanceof this.library.APIError && error.status !== undefined;
	}

	*calls(question) {
		const client = new this.library.OpenAI({
			apiKey: this.job.key,
			baseURL: `${question.url}/v1`,
			maxRetries: 0,
			timeout: this.job.timeout_s * 1000,
		});
		if (question.api === "responses") {
			const given = { model: question.model, input: question.input };
			if (question.stream) {
				yield [
					"responses.create({stream: true})",
					async () => readAll(await client.responses.create({ ...given, stream: true })),
				];
			} else {
				yield ["responses.create", async () => used(await client.responses.create(given), outputOf)];
			}
		} else if (question.api === "openai") {
			yield* question.task === "chat-completion" ? this.chat(client, question) : this.task(client, question);
		}
	}

	*chat(client, question) {
		const base = { model: question.model, messages: question.messages };
		const given = { ...base };
		for (const name of ["tools", "response_format"]) {
			if (question[name]) {
				given[name] = question[name];
			}
		}
		if (question.stream) {
			yield [
				"chat.completions.create({stream: true})",
				async () => readAll(await client.chat.completions.create({ ...given, stream: true }), deltaOf),
			];
			yield [
				"chat.completions.stream",
				async () => used(await client.chat.completions.stream({ ...base, stream: true }).finalChatCompletion(), messageOf),
			];
		} else {
			yield ["chat.completions.create", async () => used(await client.chat.completions.create(given), messageOf)];
		}
	}

	*task(client, { task, model, inputs, stream, encoding_format, plain: text }) {
		if (task === "text-generation" && stream) {
			yield [
				"completions.create({stream: true})",
				async () => readAll(await client.completions.create({ model, prompt: inputs, stream: true }), textsOf),
			];
		} else if (task === "text-generation") {
			yield ["completions.create", async () => used(await client.completions.create({ model, prompt: inputs }), textOf)];
		} else if (task === "feature-extraction") {
			const given = { model, input: inputs, ...(encoding_format ? { encoding_format } : {}) };
			const use = encoding_format === "base64" ? () => {} : vectorsOf;
			yield ["embeddings.create", async () => used(await client.embeddings.create(given), use)];
		} else if (task === "text-to-image") {
			yield ["images.generate", async () => used(await client.images.generate({ model, prompt: inputs }), imageOf)];
		} else if (task === "automatic-speech-recognition") {
			const file = new File([Buffer.from(inputs, "base64")], "audio.wav", { type: "audio/wav" });
			const given = { model, file, ...(text ? { response_format: "text" } : {}) };
			yield ["audio.transcriptions.create", async () => used(await client.audio.transcriptions.create(given), wordsOf)];
		} else if (task === "text-to-speech") {
			yield [
				"audio.speech.create",
				async () => {
					const answer = await client.audio.speech.create({ model, input: inputs, voice: "alloy" });
					return used(await answer.arrayBuffer(), (data) => expect(data.byteLength > 0, "the body is empty"));
				},
			];
		}
	}
}

async function main() {
	const job = JSON.parse(readFileSync(0, "utf-8"));
	shutNetwork(job.port);
	globalThis.File ??= NodeFile; // not global in Node.js 18
	const name = job.client === "javascript" ? "@huggingface/inference" : "openai";
	const folder = join(job.packages, "node_modules", name);
	const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf-8"));
	const entry = createRequire(join(job.packages, "package.json")).resolve(name);
	const library = await import(pathToFileURL(entry).href);
	const client = job.client === "javascript" ? new HuggingFace(library, job) : new OpenAI(library, job);
	tell({ version });
	// What a client leaves behind unawaited is not an answer, and must not end the process.
	process.on("unhandledRejection", () => {});
	process.on("uncaughtException", () => {});
	for (const question of job.questions) {
		for (const [method, call] of client.calls(question)) {
			blocked.length = 0;
			sent = false;
			tell({ n: question.n, method, ...(await outcome(call, job.timeout_s * 1000, (error) => client.isApiError(error))) });
		}
		tell({ n: question.n });
	}
	tell({ done: true });
	process.exit(0);
}

main().catch((error) => {
	tell({ fault: `${error.name}: ${error.message}`.slice(0, ERROR_CHARS) });
	process.exit(1);
});
