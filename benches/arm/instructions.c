// A QEMU plugin that counts the instructions of an emulated program by function.
//
//     cc -O2 -shared -fPIC -DVERSION=1 -o instructions.so instructions.c
//     qemu-aarch64 -plugin ./instructions.so,out=FILE PROGRAM...
//
// Writes "COUNT SYMBOL" lines to FILE when the program ends. VERSION is that of QEMU's plugin interface: 1 before
// QEMU 9, then 2. The functions of the interface that this needs are declared here, since Debian has no package with
// its header; they are the same in every version.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t,
                                                  void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int flags,
                                                 void *);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);

__attribute__((visibility("default"))) int qemu_plugin_version = VERSION;

// A block of instructions that run one after the other.
struct block {
    struct block *next;
    const char *symbol;
    uint64_t instructions, runs;
};

static struct block *blocks;
static const char *path;

static void ran(unsigned cpu, void *block) {
    (void)cpu;
    ((struct block *)block)->runs++;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    struct block *block = calloc(1, sizeof *block);
    if (!block) abort();
    block->instructions = qemu_plugin_tb_n_insns(tb);
    block->symbol = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(tb, 0));
    block->next = blocks;
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, ran, 0, block);
}

static void ended(qemu_plugin_id_t id, void *data) {
    (void)id, (void)data;
    FILE *file = fopen(path, "w");
    if (!file) abort();
    for (struct block *block = blocks; block; block = block->next)
        fprintf(file, "%" PRIu64 " %s\n", block->runs * block->instructions,
                block->symbol && *block->symbol ? block->symbol : "?");
    if (fclose(file)) abort();
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int count,
                                                               char **arguments) {
    (void)info;
    for (int i = 0; i < count; i++)
        if (!strncmp(arguments[i], "out=", 4)) path = strdup(arguments[i] + 4);
    if (!path) {
        fprintf(stderr, "instructions: out=FILE is missing\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
