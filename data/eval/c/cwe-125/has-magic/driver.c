#include "driver.h"

bool has_magic(const char *bytes, size_t size, const char *magic);

int main(int argc, char **argv)
{
    size_t size = strlen(argv[1]);
    char *bytes = exact(size);
    memcpy(bytes, argv[1], size);
    puts(has_magic(bytes, size, argv[2]) ? "yes" : "no");
    return 0;
}
