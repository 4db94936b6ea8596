// Runs the unmodified @huggingface/inference against a mapping service and a provider on loopback.
//
// The job is one JSON object on stdin: {packages, hub, provider, calls: [{method, args, options}]}. Each call's
// outcome is one line of JSON on stdout: {value} or {error, message, status}. The client knows the hub and the
// providers by fixed addresses, so its `fetch` option sends what is for the hub to `hub`, what is for a provider or
// the router to `provider`, and lets nothing else out; polling uses the global fetch, which is replaced alike.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const PROVIDERS = {
	"https://api.together.xyz": "",
	"https://queue.fal.run": "",
	"https://router.huggingface.co/hf-inference": "",
	"https://router.huggingface.co/scaleway": "",
	"https://router.huggingface.co": "",
};

const job = JSON.parse(readFileSync(0, "utf-8"));
const real = globalThis.fetch;

function redirected(url) {
	if (url.startsWith("https://huggingface.co/")) {
		return job.hub + url.slice("https://huggingface.co".length);
	}
	for (const [base, path] of Object.entries(PROVIDERS)) {
		if (url.startsWith(`${base}/`)) {
			return job.provider + path + url.slice(base.length);
		}
	}
	if (url.startsWith("data:") || url.startsWith(`${job.provider}/`)) {
		return url;
	}
	throw new Error(`only the hub and the provider may be reached, not ${url}`);
}

const redirecting = (url, init) => real(redirected(String(url)), init);
globalThis.fetch = redirecting;

async function shown(value) {
	if (value instanceof Blob) {
		return { bytes: value.size, type: value.type };
	}
	return value;
}

const entry = createRequire(join(job.packages, "package.json")).resolve("@huggingface/inference");
const { InferenceClient } = await import(pathToFileURL(entry).href);
for (const { method, args, token, options } of job.calls) {
	const client = new InferenceClient(token, { fetch: redirecting, retry_on_error: false });
	let told;
	try {
		told = { value: await shown(await client[method](args, options)) };
	} catch (error) {
		told = { error: error.constructor.name, message: error.message, status: error.httpResponse?.status };
	}
	console.log(JSON.stringify(told));
}
