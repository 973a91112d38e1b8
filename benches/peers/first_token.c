// Continue a text with llama.cpp, greedily: first_token MODEL THREADS CONTEXT TEXT TOKENS
// Prints each token as it comes, and to standard error how many tokens the text has.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "llama.h"

static void quiet(enum ggml_log_level level, const char *text, void *data) {
    (void)level, (void)text, (void)data;
}

static void *must(void *value, const char *what) {
    if (!value) {
        fprintf(stderr, "llama.cpp: %s failed\n", what);
        exit(1);
    }
    return value;
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: %s MODEL THREADS CONTEXT TEXT TOKENS\n", argv[0]);
        return 1;
    }
    const char *text = argv[4];
    llama_log_set(quiet, NULL);
    llama_backend_init();
    struct llama_model *model =
        must(llama_model_load_from_file(argv[1], llama_model_default_params()), "loading the model");
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = atoi(argv[3]);
    params.n_threads = params.n_threads_batch = atoi(argv[2]);
    struct llama_context *context = must(llama_init_from_model(model, params), "the context");
    struct llama_sampler *greedy = llama_sampler_init_greedy();

    int room = strlen(text) + 8;
    llama_token *tokens = must(malloc(room * sizeof *tokens), "malloc");
    int count = llama_tokenize(vocab, text, strlen(text), tokens, room, true, true);
    fprintf(stderr, "%d tokens\n", count);
    struct llama_batch batch = llama_batch_get_one(tokens, count);
    for (int left = atoi(argv[5]); left > 0; left--) {
        if (llama_decode(context, batch)) must(NULL, "llama_decode");
        llama_token token = llama_sampler_sample(greedy, context, -1);
        char piece[256];
        int length = llama_token_to_piece(vocab, token, piece, sizeof piece, 0, true);
        fwrite(piece, 1, length > 0 ? length : 0, stdout);
        fflush(stdout);
        batch = llama_batch_get_one(&token, 1);
    }
    return 0;
}
