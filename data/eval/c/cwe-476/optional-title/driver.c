#include "driver.h"

size_t full_name(char *out, size_t size, const char *title, const char *name);

static const char *argument(const char *text)
{
    return strcmp(text, "NULL") == 0 ? NULL : text;
}

int main(int argc, char **argv)
{
    char *out = exact(16);
    size_t length = full_name(out, 16, argument(argv[1]), argument(argv[2]));
    printf("%zu %s\n", length, out);
    return 0;
}
