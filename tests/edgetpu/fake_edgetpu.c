/* A fake libedgetpu.so.1: a TFLite external delegate that needs no Edge TPU.
 *
 * It claims the operator `edgetpu-custom-op`. What the TPU would compute, heads.py (beside this
 * library) computes with the CPU file of the same network, in the runtime that loaded the library:
 * that is always a Python process, whose interpreter runs it. So the poses are real.
 *
 * Environment, all optional but the first two for a device that computes:
 *   FAKE_EDGETPU_MODELS   folder of files made by compiled.py:heads_model
 *   FAKE_EDGETPU_CONTROL  file with the behaviour; read at create and at each
 *                             invoke; missing or empty: ok. `<control>.lock` is the device: one
 *                             process at a time holds it, and create fails in every other.
 *   FAKE_EDGETPU_DEVICE   name of the device; usb:0 if unset
 *
 * The control file holds `WORD [MS] [after N]`:
 *   ok
 *   zeros                 outputs are all zero, and cost nothing
 *   absent, busy          create returns NULL without a reason; under `absent` invoke fails as well
 *   unplugged             `abort` at the next invoke, `absent` at create: a cable pulled out
 *   fail                  invoke returns an error
 *   abort, abort-at-create, segfault-at-create, hang, hang-at-create
 *   slow MS               an invoke takes MS, if the model on the CPU takes no longer
 *   slow-at-create MS
 *   version               the model does not prepare, as one compiled for a newer runtime
 * `after N` lets this process do N more invokes first, counted from when it first reads a file with
 * another content; a second line, `# anything`, makes the same behaviour count anew. Until then the
 * device is ok, at create too.
 *
 * Layouts are those of TensorFlow Lite's C API (tensorflow/lite/core/c/common.h), whose fields used
 * here kept their places from tflite-runtime 2.5 to LiteRT 2.3. On 32-bit ARM `Registration` must
 * have the size that the runtime gives it, since it is passed by value before other arguments.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

/* ---- TensorFlow Lite ---- */

enum { STATUS_OK = 0, STATUS_ERROR = 1 };
enum { BUILTIN_DELEGATE = 51 };
/* Without this flag the runtime prepares all operators before the delegate is asked, and the custom
 * operator is unresolved. */
enum { FLAG_ALLOW_DYNAMIC_TENSORS = 1 };

typedef struct {
    int size;
    int data[];
} IntArray;

typedef struct Delegate Delegate;

typedef struct {
    int type;
    void *data;
    IntArray *dims;
    struct {
        float scale;
        int32_t zero_point;
    } params;
    int allocation_type;
    size_t bytes;
    const void *allocation;
    const char *name;
    Delegate *delegate;
    int buffer_handle;
    bool data_is_stale;
    bool is_variable;
    struct {
        int type;
        void *params;
    } quantization;
    void *sparsity;
    const IntArray *dims_signature;
} Tensor;

typedef struct {
    IntArray *inputs;
    IntArray *outputs;
    /* More follows. */
} Node;

typedef struct Context Context;

typedef struct {
    void *(*init)(Context *, const char *, size_t);
    void (*free)(Context *, void *);
    int (*prepare)(Context *, Node *);
    int (*invoke)(Context *, Node *);
    const char *(*profiling_string)(const Context *, const Node *);
    int32_t builtin_code;
    const char *custom_name;
    int version;
    void *registration_external;
    void *async_kernel;
    uint64_t inplace_operator;
} Registration;

struct Context {
    size_t tensors_size;
    int (*get_execution_plan)(Context *, IntArray **);
    Tensor *tensors;
    void *impl;
    int (*resize_tensor)(Context *, Tensor *, IntArray *);
    void (*report_error)(Context *, const char *, ...);
    int (*add_tensors)(Context *, int, int *);
    int (*get_node_and_registration)(Context *, int, Node **, Registration **);
    int (*replace_nodes)(Context *, Registration, const IntArray *, Delegate *);
    /* More follows. */
};

struct Delegate {
    void *data;
    int (*prepare)(Context *, Delegate *);
    void *copy_from_buffer_handle;
    void *copy_to_buffer_handle;
    void *free_buffer_handle;
    int64_t flags;
    void *opaque_builder;
};

/* ---- CPython's stable ABI, provided by the process that loads this library ---- */

typedef struct PyObject PyObject;
extern int PyGILState_Ensure(void);
extern void PyGILState_Release(int);
extern PyObject *PyImport_ImportModule(const char *);
extern PyObject *PyObject_CallMethod(PyObject *, const char *, const char *, ...);
extern PyObject *PyObject_GetAttrString(PyObject *, const char *);
extern PyObject *PyUnicode_AsUTF8String(PyObject *);
extern char *PyBytes_AsString(PyObject *);
extern void PyErr_Print(void);
extern void Py_DecRef(PyObject *);

/* ---- behaviour ---- */

typedef struct {
    char word[32];
    long ms;
    bool known;
} Control;

static void log_line(const char *what, const char *detail) {
    fprintf(stderr, "fake edgetpu: %s%s\n", what, detail);
    fflush(stderr);
}

static bool is(const Control *control, const char *word) { return !strcmp(control->word, word); }

static bool is_known(const Control *control) {
    static const char *const words[] = {
        "ok",    "zeros",           "absent",             "busy", "unplugged",      "fail",
        "abort", "abort-at-create", "segfault-at-create", "hang", "hang-at-create", "slow",
        "slow-at-create", "version"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (is(control, words[i]))
            return true;
    return false;
}

/* Reads the control file; `invoking` counts towards `after N`. */
static Control read_control(bool invoking) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static char last[128];
    static long invokes;
    Control control = {.word = "ok", .ms = 0, .known = true};
    const char *path = getenv("FAKE_EDGETPU_CONTROL");
    FILE *file = path ? fopen(path, "re") : NULL;
    if (!file)
        return control;
    pthread_mutex_lock(&mutex);
    char text[sizeof last] = "", token[32];
    size_t length = fread(text, 1, sizeof text - 1, file);
    text[length] = '\0';
    if (strcmp(text, last)) {
        strcpy(last, text);
        invokes = 0;
    }
    int used = 0;
    bool begun = true;
    if (sscanf(text, "%31s%n", control.word, &used) == 1) {
        const char *rest = text + used;
        if (sscanf(rest, "%ld%n", &control.ms, &used) == 1)
            rest += used;
        long after = 0;
        if (sscanf(rest, "%31s %ld", token, &after) == 2 && !strcmp(token, "after"))
            begun = invokes >= after;
    }
    if (invoking)
        invokes++;
    pthread_mutex_unlock(&mutex);
    fclose(file);
    control.known = is_known(&control);
    if (control.known && !begun)
        strcpy(control.word, "ok");
    return control;
}

static struct timespec in_ms(long ms) {
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_nsec += ms % 1000 * 1000000;
    end.tv_sec += ms / 1000 + end.tv_nsec / 1000000000;
    end.tv_nsec %= 1000000000;
    return end;
}

static void sleep_until(struct timespec end) {
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR)
        ;
}

static void hang(void) {
    log_line("hangs", "");
    for (;;)
        pause();
}

/* What libedgetpu writes when a transfer fails because the device is gone. */
static void lose_usb(void) {
    fputs("F driver/usb/usb_driver.cc:1148] HandleQueuedBulkIn transfer in failed. "
          "Not found: USB transfer error 5 [LibUsbDataInCallback]\n",
          stderr);
    fflush(stderr);
    abort();
}

/* ---- the device: a lock that one process holds ---- */

static int device = -1;
static int holders;

static bool open_device(void) {
    const char *control = getenv("FAKE_EDGETPU_CONTROL");
    if (holders == 0 && control) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s.lock", control);
        device = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (device < 0 || flock(device, LOCK_EX | LOCK_NB)) {
            log_line("another process holds ", path);
            if (device >= 0)
                close(device);
            device = -1;
            return false;
        }
    }
    holders++;
    return true;
}

static void close_device(void) {
    if (--holders == 0 && device >= 0) {
        close(device);
        device = -1;
    }
}

/* `usb`, `:0` and nothing at all all mean the first device of that kind, or of any. */
static bool is_my_device(const char *wanted) {
    const char *mine = getenv("FAKE_EDGETPU_DEVICE");
    mine = mine && *mine ? mine : "usb:0";
    const char *number = strchr(mine, ':');
    return !*wanted || !strcmp(wanted, mine) || (number && !strcmp(wanted, number)) ||
           (strlen(wanted) == 3 && !strncmp(wanted, mine, 3));
}

/* ---- heads.py ---- */

/* One tensor for heads.py, whose `_Tensor` has the same fields. */
typedef struct {
    const char *name;
    void *data;
    size_t bytes;
    const int *extents;
    int32_t rank;
    int32_t type;
    int32_t zero_point;
    float scale;
} TensorView;

static TensorView *views_of(Context *context, const IntArray *indices) {
    TensorView *views = calloc(indices->size + 1, sizeof *views);
    for (int i = 0; i < indices->size; i++) {
        const Tensor *tensor = &context->tensors[indices->data[i]];
        views[i] = (TensorView){tensor->name,       tensor->data,
                                tensor->bytes,      tensor->dims->data,
                                tensor->dims->size, tensor->type,
                                tensor->params.zero_point, tensor->params.scale};
    }
    return views;
}

static PyObject *import_heads(void) {
    Dl_info me;
    char path[PATH_MAX], folder[PATH_MAX];
    dladdr((void *)(uintptr_t)import_heads, &me);
    snprintf(folder, sizeof folder, "%s", me.dli_fname);
    if (snprintf(path, sizeof path, "%s/heads.py", dirname(folder)) >= (int)sizeof path)
        return NULL;
    PyObject *tools = PyImport_ImportModule("importlib.util");
    PyObject *spec = tools ? PyObject_CallMethod(tools, "spec_from_file_location", "ss",
                                                 "fake_edgetpu_heads", path)
                           : NULL;
    PyObject *module = spec ? PyObject_CallMethod(tools, "module_from_spec", "O", spec) : NULL;
    PyObject *loader = module ? PyObject_GetAttrString(spec, "loader") : NULL;
    PyObject *done = loader ? PyObject_CallMethod(loader, "exec_module", "O", module) : NULL;
    return done ? module : NULL;
}

/* Calls heads.py:`method` with the node's tensors; reports its error. */
static int ask_heads(Context *context, Node *node, const char *method) {
    static PyObject *heads;
    /* The library of any of the runtime's functions is the runtime. */
    Dl_info runtime;
    dladdr((void *)(uintptr_t)context->resize_tensor, &runtime);
    const char *models = getenv("FAKE_EDGETPU_MODELS");
    TensorView *inputs = views_of(context, node->inputs);
    TensorView *outputs = views_of(context, node->outputs);
    int status = STATUS_ERROR;
    int gil = PyGILState_Ensure();
    if (!heads)
        heads = import_heads();
    PyObject *answer = heads ? PyObject_CallMethod(heads, method, "ssKiKi", runtime.dli_fname,
                                                   models ? models : "",
                                                   (unsigned long long)(uintptr_t)inputs,
                                                   node->inputs->size,
                                                   (unsigned long long)(uintptr_t)outputs,
                                                   node->outputs->size)
                             : NULL;
    PyObject *bytes = answer ? PyUnicode_AsUTF8String(answer) : NULL;
    const char *error = bytes ? PyBytes_AsString(bytes) : NULL;
    if (!error) {
        PyErr_Print();
        context->report_error(context, "fake edgetpu: heads.py failed, see stderr. ");
    } else if (*error) {
        context->report_error(context, "fake edgetpu: %s. ", error);
    } else {
        status = STATUS_OK;
    }
    if (bytes)
        Py_DecRef(bytes);
    if (answer)
        Py_DecRef(answer);
    PyGILState_Release(gil);
    free(inputs);
    free(outputs);
    return status;
}

/* ---- the operator ---- */

static void *kernel_init(Context *context, const char *params, size_t size) {
    (void)context;
    (void)params;
    (void)size;
    return malloc(1);
}

static void kernel_free(Context *context, void *kernel) {
    (void)context;
    free(kernel);
}

static int kernel_prepare(Context *context, Node *node) {
    Control control = read_control(false);
    if (is(&control, "version")) {
        context->report_error(context, "Failed to prepare for TPU. Failed precondition: Package "
                                       "requires runtime version (14), which is newer than this "
                                       "runtime version (13).");
        return STATUS_ERROR;
    }
    return is(&control, "zeros") ? STATUS_OK : ask_heads(context, node, "prepare");
}

static int kernel_invoke(Context *context, Node *node) {
    Control control = read_control(true);
    struct timespec end = in_ms(control.ms);
    if (!control.known) {
        context->report_error(context, "fake edgetpu: unknown control word %s. ", control.word);
        return STATUS_ERROR;
    }
    if (is(&control, "abort") || is(&control, "unplugged"))
        lose_usb();
    if (is(&control, "hang"))
        hang();
    if (is(&control, "fail") || is(&control, "absent")) {
        context->report_error(context, "fake edgetpu: set to %s. ",
                              is(&control, "fail") ? "fail" : "be absent");
        return STATUS_ERROR;
    }
    if (is(&control, "zeros")) {
        for (int i = 0; i < node->outputs->size; i++) {
            Tensor *tensor = &context->tensors[node->outputs->data[i]];
            memset(tensor->data, 0, tensor->bytes);
        }
        return STATUS_OK;
    }
    int status = ask_heads(context, node, "fill");
    /* A device takes this long in all, however long the model took on the CPU. */
    if (is(&control, "slow"))
        sleep_until(end);
    return status;
}

/* ---- the delegate ---- */

static int delegate_prepare(Context *context, Delegate *delegate) {
    IntArray *plan;
    if (context->get_execution_plan(context, &plan))
        return STATUS_ERROR;
    /* The runtime reuses the plan's memory while it answers the questions below. */
    size_t bytes = sizeof *plan + sizeof(int) * plan->size;
    IntArray *nodes = malloc(bytes), *mine = calloc(1, bytes);
    memcpy(nodes, plan, bytes);
    int status = STATUS_OK;
    for (int i = 0; i < nodes->size && status == STATUS_OK; i++) {
        Node *node;
        Registration *operator;
        status = context->get_node_and_registration(context, nodes->data[i], &node, &operator);
        if (status == STATUS_OK && operator->custom_name &&
            !strcmp(operator->custom_name, "edgetpu-custom-op"))
            mine->data[mine->size++] = nodes->data[i];
    }
    Registration kernel = {.init = kernel_init,
                           .free = kernel_free,
                           .prepare = kernel_prepare,
                           .invoke = kernel_invoke,
                           .builtin_code = BUILTIN_DELEGATE,
                           .custom_name = "EdgeTpuDelegateForCustomOp",
                           .version = 1};
    if (status == STATUS_OK)
        status = context->replace_nodes(context, kernel, mine, delegate);
    free(nodes);
    free(mine);
    return status;
}

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                        void (*report)(const char *)) {
    /* libedgetpu reports nothing if it finds no device: the caller gets an empty message. */
    (void)report;
    const char *wanted = "";
    for (size_t i = 0; i < count; i++) {
        fprintf(stderr, "fake edgetpu: option %s=%s\n", keys[i], values[i]);
        if (!strcmp(keys[i], "device"))
            wanted = values[i];
    }
    Control control = read_control(false);
    if (!control.known) {
        log_line("unknown control word ", control.word);
        return NULL;
    }
    if (is(&control, "abort-at-create"))
        lose_usb();
    if (is(&control, "segfault-at-create"))
        raise(SIGSEGV);
    if (is(&control, "hang-at-create"))
        hang();
    if (is(&control, "slow-at-create"))
        sleep_until(in_ms(control.ms));
    if (is(&control, "absent") || is(&control, "busy") || is(&control, "unplugged") ||
        !is_my_device(wanted) || !open_device())
        return NULL;
    Delegate *delegate = calloc(1, sizeof *delegate);
    delegate->prepare = delegate_prepare;
    delegate->flags = FLAG_ALLOW_DYNAMIC_TENSORS;
    return delegate;
}

void tflite_plugin_destroy_delegate(Delegate *delegate) {
    if (delegate)
        close_device();
    free(delegate);
}
