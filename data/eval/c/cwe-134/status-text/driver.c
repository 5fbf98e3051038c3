#include "driver.h"

void set_status(char *text, size_t size, const char *status);

int main(int argc, char **argv)
{
    char *text = exact(20);
    set_status(text, 20, argv[1]);
    puts(text);
    return 0;
}
