// Runs llama.cpp as `kinglet bench` runs kinglet, on one thread: llama_cpp_bench MODEL.gguf PROMPT GENERATE REPEAT
//
// Processes a prompt of PROMPT tokens at once, or generates GENERATE one by one, REPEAT times over from an empty
// context. Nothing is measured here: the caller counts instructions.

#include "llama.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

static void decode(llama_context *context, llama_token *tokens, int count) {
    if (llama_decode(context, llama_batch_get_one(tokens, count)) != 0) {
        fprintf(stderr, "llama_decode failed\n");
        exit(1);
    }
    llama_synchronize(context);
}

int main(int count, char **arguments) {
    if (count != 5) {
        fprintf(stderr, "usage: llama_cpp_bench MODEL.gguf PROMPT GENERATE REPEAT\n");
        return 1;
    }
    const int prompt = atoi(arguments[2]), generate = atoi(arguments[3]), repeat = atoi(arguments[4]);
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    if (repeat == 0) {
        puts(llama_print_system_info());
        return 0;
    }
    llama_model *model = llama_model_load_from_file(arguments[1], llama_model_default_params());
    if (!model) {
        fprintf(stderr, "llama.cpp cannot load %s\n", arguments[1]);
        return 1;
    }
    llama_context_params params = llama_context_default_params();
    params.n_ctx = prompt + generate + 1;
    params.n_batch = 2048;
    params.n_ubatch = 512;
    params.n_threads = params.n_threads_batch = 1;
    llama_context *context = llama_init_from_model(model, params);
    if (!context) {
        fprintf(stderr, "llama.cpp cannot make a context\n");
        return 1;
    }
    const uint64_t vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    // The tokens of `kinglet bench`.
    std::vector<llama_token> tokens(prompt + generate + 1);
    for (uint64_t i = 0; i < tokens.size(); i++) tokens[i] = (i * 0x9E3779B97F4A7C15u >> 33) % vocabulary;
    for (int run = 0; run < repeat; run++) {
        llama_memory_clear(llama_get_memory(context), true);
        if (prompt) decode(context, tokens.data(), prompt);
        for (int i = 0; i < generate; i++) decode(context, &tokens[i], 1);
    }
    llama_free(context);
    llama_model_free(model);
}
