#include "driver.h"

void print_title(const char *title);

int main(int argc, char **argv)
{
    print_title(argv[1]);
    return 0;
}
