#include "driver.h"

int join_path(char *out, size_t size, const char *folder, const char *file);

int main(int argc, char **argv)
{
    size_t size = atoi(argv[1]);
    char *out = exact(size);
    int status = join_path(out, size, argv[2], argv[3]);
    printf("%d %s\n", status, status == 0 ? out : "");
    return 0;
}
