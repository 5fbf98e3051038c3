#include "driver.h"

void expand_tabs(const char *line, char *out, size_t size);

int main(int argc, char **argv)
{
    size_t size = atoi(argv[1]);
    char *out = exact(size);
    expand_tabs(argv[2], out, size);
    printf("[%s]\n", out);
    return 0;
}
