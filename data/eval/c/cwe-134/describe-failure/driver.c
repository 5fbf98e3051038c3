#include "driver.h"

void describe(char *out, size_t size, const char *path, const char *reason, int code);

int main(int argc, char **argv)
{
    char *out = exact(64);
    describe(out, 64, argv[1], argv[2], atoi(argv[3]));
    puts(out);
    return 0;
}
