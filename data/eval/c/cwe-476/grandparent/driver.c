#include "driver.h"

struct folder {
    const char *name;
    const struct folder *parent;
};

const char *grandparent_name(const struct folder *folder);

int main(int argc, char **argv)
{
    struct folder *folder = NULL;
    for (int i = 1; i < argc; i++) {
        struct folder *inner = exact(sizeof *inner);
        inner->name = argv[i];
        inner->parent = folder;
        folder = inner;
    }
    puts(grandparent_name(folder));
    return 0;
}
