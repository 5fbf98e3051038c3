#include "driver.h"

int hex_encode(const unsigned char *bytes, size_t count, char *text, size_t size);

int main(int argc, char **argv)
{
    size_t size = atoi(argv[1]);
    char *text = exact(size);
    int status = hex_encode((const unsigned char *)argv[2], strlen(argv[2]), text, size);
    printf("%d %s\n", status, status == 0 ? text : "");
    return 0;
}
