// A small base model behind an endpoint with OpenAI's chat completions, for benchmarks/documents_only.py.
//
// Run: node server.mjs MODEL.gguf PORT. It needs the npm package node-llama-cpp. A base model follows no
// instructions, so a request is turned into a few examples that the model continues (InPars, arXiv 2202.05144).
import http from "node:http";
import {getLlama, LlamaCompletion} from "node-llama-cpp";

const [modelPath, port] = process.argv.slice(2);

const EXAMPLES = [
    ["The heart of a blue whale weighs about 180 kilograms and beats eight to ten times a minute at the surface. "
        + "During deep dives the rate falls to two beats a minute.",
    "how often does the heart of a blue whale beat during a dive",
    "blue whale heart rate diving"],
    ["We measured the corrosion of welded steel pipes in sea water over three years. Pipes with a zinc coating lost "
        + "a tenth of the mass that uncoated pipes lost, whatever the temperature.",
    "does a zinc coating protect steel pipes from corrosion in sea water",
    "zinc coating corrosion welded steel"],
    ["To restore a deleted branch, find the hash of its last commit in the reflog and create a branch at that "
        + "commit. Unreachable commits are kept for at least thirty days by default.",
    "how can I get back a git branch that I deleted",
    "restore deleted branch reflog"],
];

const llama = await getLlama({gpu: false, maxThreads: 2});
const model = await llama.loadModel({modelPath});
const context = await model.createContext({contextSize: 2048});
const completion = new LlamaCompletion({contextSequence: context.getSequence()});

function prompt(passage, kind) {
    const shown = EXAMPLES.map(([text, question, keywords]) =>
        `Passage: ${text}\n${kind === "keywords" ? "Search words" : "Question"}: ${kind === "keywords" ? keywords : question}\n`);
    const label = kind === "keywords" ? "Search words" : "Question";
    return `${shown.join("\n")}\nPassage: ${passage}\n${label}:`;
}

let queue = Promise.resolve();

async function answer(request) {
    const user = request.messages.at(-1).content;
    const passage = user.split('"""')[1].replace(/\s+/g, " ").trim().slice(0, 1500);
    const wanted = [...user.matchAll(/^- (\d+) of type (\w+):/gm)].flatMap(([, count, kind]) =>
        Array.from({length: Number(count)}, () => kind));
    const queries = [];
    let tokens = 0;
    for (const [number, kind] of wanted.entries()) {
        const text = await completion.generateCompletion(prompt(passage, kind), {
            maxTokens: 40,
            temperature: request.temperature ?? 0.7,
            seed: (request.seed ?? 0) + number,
            customStopTriggers: ["\n"],
        });
        tokens += model.tokenize(text).length;
        queries.push({type: kind, query: text.trim()});
    }
    return {text: JSON.stringify({queries}), prompt: model.tokenize(user).length, tokens};
}

http.createServer((incoming, outgoing) => {
    let body = "";
    incoming.on("data", (block) => { body += block; });
    incoming.on("end", () => {
        queue = queue.then(async () => {
            try {
                const found = await answer(JSON.parse(body));
                outgoing.setHeader("Content-Type", "application/json");
                outgoing.end(JSON.stringify({
                    choices: [{message: {role: "assistant", content: found.text}}],
                    usage: {prompt_tokens: found.prompt, completion_tokens: found.tokens},
                }));
            } catch (error) {
                outgoing.statusCode = 500;
                outgoing.end(JSON.stringify({error: {message: String(error)}}));
            }
        });
    });
}).listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${port}/v1`));
